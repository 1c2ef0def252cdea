-- Puts a new invocation and its queue row on record, claimed where an execution ($21) is given; returns the fence of that claim. No row:
-- the function was to be as the server saw it last ($19), and it has another revision or other settings ($20).
WITH planned AS (
  SELECT WHERE NOT $19 OR EXISTS (
    SELECT FROM functions f LEFT JOIN function_settings s ON s.namespace = f.namespace AND s.function = f.name
    WHERE f.namespace = $2 AND f.name = $3 AND f.revision = $4 AND s.set_at IS NOT DISTINCT FROM $20::timestamptz)
), invoked AS (
  INSERT INTO invocations (id, namespace, function, revision, cause_kind, cause, state, attempts, executions,
      content_type, payload, payload_size, deadline, created_at, payload_file)
  SELECT $1, $2, $3, $4, $5, $6::text::jsonb, 'queued', 0, '{}', $7, $8, $9, $10, $11, $17 FROM planned
)
INSERT INTO queue (invocation, namespace, function, revision, cause_kind, reset, on_lost, max_concurrency, memory, priority, not_before,
    deadline, execution, server, lease_until, fence, attempt)
SELECT $1, $2, $3, $4, $5, $12, $13, $14, $15, $16, GREATEST(now(), $18), $10, $21::uuid,
    CASE WHEN $21 IS NOT NULL THEN $22 END, CASE WHEN $21 IS NOT NULL THEN now() + make_interval(secs => $23) END,
    CASE WHEN $21 IS NOT NULL THEN nextval('queue_fence') END, CASE WHEN $21 IS NOT NULL THEN 1 ELSE 0 END
FROM planned
RETURNING fence
