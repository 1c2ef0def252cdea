-- Puts executions of claimed work on record, and whether they run; returns those whose claims hold. Rows of the queue that somebody is at are
-- passed over.
WITH held AS (
  SELECT q.*, n.start_kind, n.sandbox, n.at, n.claimed_at
  FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[])
    AS n (invocation, fence, start_kind, sandbox, at, claimed_at)
  CROSS JOIN LATERAL (
    SELECT * FROM queue w WHERE w.invocation = n.invocation AND w.fence = n.fence FOR NO KEY UPDATE SKIP LOCKED
  ) q
), begun AS (
  INSERT INTO executions AS x (id, invocation, namespace, function, revision, cause_kind, attempt, state, server,
      start_kind, sandbox, reset, created_at, started_at)
  SELECT execution, invocation, namespace, function, revision, cause_kind, attempt,
      CASE WHEN at IS NULL THEN 'starting' ELSE 'running' END, server, start_kind, sandbox, reset, claimed_at, at
  FROM held
  ON CONFLICT (id) DO UPDATE
  SET state = 'running', start_kind = excluded.start_kind, sandbox = excluded.sandbox, started_at = excluded.started_at
  WHERE x.outcome IS NULL AND x.started_at IS NULL AND excluded.started_at IS NOT NULL
), known AS (
  -- Without a join, which would look through the batch for each of its rows.
  UPDATE invocations i
  SET state = 'running',
      attempts = (ARRAY(SELECT attempt FROM held))[array_position(ARRAY(SELECT invocation FROM held), i.id)],
      executions = CASE WHEN i.executions && ARRAY(SELECT execution FROM held) THEN i.executions
        ELSE i.executions || (ARRAY(SELECT execution FROM held))[array_position(ARRAY(SELECT invocation FROM held), i.id)] END
  WHERE i.id = ANY($1) AND i.id = ANY(ARRAY(SELECT invocation FROM held)) AND i.state IN ('queued', 'running')
)
SELECT execution AS "execution!" FROM held
