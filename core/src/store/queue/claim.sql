-- Claims what is due and can start, by fair shares. `named` finds the functions that have something waiting, one probe of the index each,
-- so that the backlog of one costs nothing to the others; `head` has those that have a free turn, and `first` puts them in order: only the
-- first $1 of them can be dealt anything. A share is what the namespace has had more than others, in pieces over its weight, with what goes
-- before in it; within a namespace the same of functions, within a function the best work is first. `due` locks as much of each
-- as it has turns, `turn`, `fair` and `fitting` count through it, and `slot` deals out the execution ids that the caller made. `claimed`
-- takes it out of the waiting. History is only read, one probe for each, and only that of the last hour ($15 to $16), which spares the
-- partitions of all other days: what is older the caller reads for itself.
WITH RECURSIVE named AS (
  (SELECT q.namespace, q.function FROM queue q WHERE q.lease_until IS NULL ORDER BY q.namespace, q.function LIMIT 1)
  UNION ALL
  SELECT next.namespace, next.function
  FROM named n CROSS JOIN LATERAL (
    SELECT q.namespace, q.function FROM queue q
    WHERE q.lease_until IS NULL AND (q.namespace, q.function) > (n.namespace, n.function)
    ORDER BY q.namespace, q.function LIMIT 1
  ) next
), head AS (
  SELECT n.namespace, n.function, COALESCE(u.executions, 0) AS used, best.max_concurrency - COALESCE(u.executions, 0) AS turns,
      COALESCE(u.ahead, 0) AS ahead, COALESCE(s.ahead, 0) AS owner_ahead, COALESCE(s.weight, 1) AS weight, best.priority, best.not_before,
      best.invocation
  FROM named n
  LEFT JOIN unnest($5::text[], $6::text[], $7::integer[], $11::float8[]) AS u (namespace, function, executions, ahead)
    ON u.namespace = n.namespace AND u.function = n.function
  LEFT JOIN unnest($12::text[], $13::float8[], $14::float8[]) AS s (namespace, ahead, weight) ON s.namespace = n.namespace
  CROSS JOIN LATERAL (
    SELECT q.max_concurrency, q.priority, q.not_before, q.invocation FROM queue q
    WHERE q.namespace = n.namespace AND q.function = n.function
      AND q.lease_until IS NULL AND q.not_before <= now() AND (q.deadline IS NULL OR q.deadline > now())
    ORDER BY q.priority DESC, q.not_before, q.invocation LIMIT 1
  ) best
  WHERE best.max_concurrency > COALESCE(u.executions, 0)
), first AS (
  SELECT h.*, owner_ahead
      + (row_number() OVER (PARTITION BY namespace ORDER BY ahead, priority DESC, not_before, invocation) - 1) / weight AS share
  FROM head h
  ORDER BY share, priority DESC, not_before, invocation
  LIMIT $1
), due AS (
  SELECT d.*, h.used, h.ahead, h.owner_ahead, h.weight
  FROM first h CROSS JOIN LATERAL (
    SELECT q.invocation, q.namespace, q.function, q.max_concurrency, q.memory, q.priority, q.not_before FROM queue q
    WHERE q.namespace = h.namespace AND q.function = h.function
      AND q.lease_until IS NULL AND q.not_before <= now() AND (q.deadline IS NULL OR q.deadline > now())
    ORDER BY q.priority DESC, q.not_before, q.invocation
    LIMIT least($1, h.turns)
    FOR UPDATE OF q SKIP LOCKED
  ) d
), turn AS (
  -- Revisions of a function may differ in their limit.
  SELECT d.*, row_number() OVER (PARTITION BY namespace, function ORDER BY priority DESC, not_before, invocation) AS nth FROM due d
), fair AS (
  SELECT t.*, owner_ahead
      + (row_number() OVER (PARTITION BY namespace ORDER BY ahead + nth, priority DESC, not_before, invocation) - 1) / weight AS share
  FROM turn t WHERE t.used + t.nth <= t.max_concurrency
), fitting AS (
  SELECT t.invocation, row_number() OVER best_first AS n, sum(CASE WHEN t.memory <= $10 THEN t.memory ELSE 0 END) OVER best_first AS memory
  FROM fair t
  WINDOW best_first AS (ORDER BY t.share, t.priority DESC, t.not_before, t.invocation)
), slot AS (
  SELECT f.invocation, ($4::uuid[])[f.n] AS execution
  FROM fitting f
  WHERE f.n <= cardinality($4::uuid[]) AND (f.memory <= $8::bigint OR (f.n = 1 AND $9))
), claimed AS (
  UPDATE queue q
  SET server = $2, lease_until = now() + make_interval(secs => $3), fence = nextval('queue_fence'),
      attempt = q.attempt + 1, execution = s.execution
  FROM slot s
  -- By the array each row is reached through its key, however small the queue was when this was planned.
  WHERE q.invocation = ANY(ARRAY(SELECT invocation FROM slot)) AND s.invocation = q.invocation
  RETURNING q.*
)
SELECT c.invocation AS "invocation: InvocationId", c.execution AS "execution!: ExecutionId",
    c.namespace AS "namespace: Namespace", c.function AS "function: FunctionName", c.revision AS "revision: RevisionDigest",
    c.attempt, c.fence AS "fence!", i.cause AS "cause?", i.payload AS "payload?", i.payload_file AS "payload_file?", i.content_type AS "content_type?",
    i.created_at AS "created_at?", c.priority, c.deadline, c.not_before
FROM claimed c LEFT JOIN LATERAL (
  SELECT * FROM invocations h WHERE h.id = c.invocation AND h.id BETWEEN $15 AND $16 LIMIT 1
) i ON true
ORDER BY c.priority DESC, c.not_before, c.invocation
