-- Claims what is due, best first: `due` locks it, `slot` deals out the execution ids that the caller made, `claimed` takes it out of the
-- waiting, `begun` and `taken` put it on record.
WITH due AS (
  SELECT q.invocation FROM queue q
  WHERE q.lease_until IS NULL AND q.not_before <= now() AND (q.deadline IS NULL OR q.deadline > now())
    AND NOT EXISTS (SELECT FROM unnest($5::text[], $6::text[]) AS f (namespace, function)
                    WHERE f.namespace = q.namespace AND f.function = q.function)
  ORDER BY q.priority DESC, q.not_before, q.invocation
  LIMIT $1
  FOR UPDATE OF q SKIP LOCKED
), slot AS (
  SELECT d.invocation, e.execution
  FROM (SELECT invocation, row_number() OVER () AS n FROM due) d
  JOIN unnest($4::uuid[]) WITH ORDINALITY AS e (execution, n) ON e.n = d.n
), claimed AS (
  UPDATE queue q
  SET server = $2, lease_until = now() + make_interval(secs => $3), fence = nextval('queue_fence'),
      attempt = q.attempt + 1, execution = s.execution
  FROM slot s WHERE q.invocation = s.invocation
  RETURNING q.*
), begun AS (
  INSERT INTO executions (id, invocation, namespace, function, revision, cause_kind, attempt, state, server, reset, created_at)
  SELECT execution, invocation, namespace, function, revision, cause_kind, attempt, 'starting', server, reset, $7
  FROM claimed
), taken AS (
  UPDATE invocations i
  SET state = 'running', attempts = c.attempt, executions = i.executions || c.execution
  FROM claimed c WHERE i.id = c.invocation
  RETURNING i.id, i.cause, i.payload, i.content_type, i.created_at
)
SELECT c.invocation AS "invocation: InvocationId", c.execution AS "execution!: ExecutionId",
    c.namespace AS "namespace: Namespace", c.function AS "function: FunctionName", c.revision AS "revision: RevisionDigest",
    c.attempt, c.fence AS "fence!", t.cause, t.payload, t.content_type, t.created_at
FROM claimed c JOIN taken t ON t.id = c.invocation
ORDER BY c.priority DESC, c.not_before, c.invocation
