-- Puts decided ticks on record: each tick's row, for those that run the invocation and its queue row, and the new cursors.
-- Those that can start at once are claimed with it: the executions and fences of all that are queued are returned.
-- A tick that has its row already changes nothing. What is held waits in the queue for infinity, until the run before it is over, and
-- does not age meanwhile.
WITH tick AS (
  SELECT * FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::text[], $5::uuid[], $6::float8[], $7::text[], $8::bytea[],
      $9::text[], $10::text[], $11::text[], $12::text[], $13::integer[], $14::bigint[], $18::float8[], $19::uuid[])
    AS t (trigger, namespace, fires_at, fate, invocation, delay, cause, payload,
      function, revision, reset, on_lost, max_concurrency, memory, max_age, execution)
), new AS (
  INSERT INTO cron_ticks (namespace, trigger, fires_at, invocation, fate, decided_at)
  SELECT namespace, trigger, fires_at, invocation, fate, $15 FROM tick
  ON CONFLICT (namespace, trigger, fires_at) DO NOTHING
  RETURNING invocation
), work AS (
  -- Within an expression the subquery is hashed; a join would go through all of them for each of them.
  SELECT * FROM tick WHERE COALESCE(invocation IN (SELECT invocation FROM new), false)
), invoked AS (
  INSERT INTO invocations (id, namespace, function, revision, cause_kind, cause, state, attempts, executions, content_type,
      payload, payload_size, created_at, deadline)
  SELECT invocation, namespace, function, revision, 'cron', cause::jsonb, CASE WHEN fate = 'held' THEN 'held' ELSE 'queued' END,
      0, '{}', 'application/json', payload, octet_length(payload), $15,
      CASE WHEN fate <> 'held' THEN now() + make_interval(secs => delay + max_age) END
  FROM work
), queued AS (
  INSERT INTO queue (invocation, namespace, function, revision, cause_kind, reset, on_lost, max_concurrency, memory, priority,
      not_before, trigger, deadline, execution, server, lease_until, fence, attempt)
  SELECT invocation, namespace, function, revision, 'cron', reset, on_lost, max_concurrency, memory, 0,
      CASE WHEN fate = 'held' THEN 'infinity' ELSE now() + make_interval(secs => delay) END, trigger,
      CASE WHEN fate <> 'held' THEN now() + make_interval(secs => delay + max_age) END, execution,
      CASE WHEN execution IS NOT NULL THEN $20 END,
      CASE WHEN execution IS NOT NULL THEN now() + make_interval(secs => $21) END,
      CASE WHEN execution IS NOT NULL THEN nextval('queue_fence') END, CASE WHEN execution IS NOT NULL THEN 1 ELSE 0 END
  FROM work
  RETURNING execution, fence
), moved AS (
  UPDATE cron_schedules SET cursor = $17 WHERE trigger = ANY($16::uuid[])
)
SELECT count(*) - count(execution) AS "waiting!",
  COALESCE(array_agg(execution ORDER BY execution) FILTER (WHERE execution IS NOT NULL), '{}') AS "executions!",
  COALESCE(array_agg(fence ORDER BY execution) FILTER (WHERE execution IS NOT NULL), '{}') AS "fences!"
FROM queued
