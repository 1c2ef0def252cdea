-- Turns messages into invocations, claimed where they can start at once: the invocations, their queue rows, and the messages in flight. What nobody wants goes; what cannot
-- be dealt with is a dead letter. A message that somebody has removed meanwhile is not counted: the caller undoes it all then.
WITH work AS (
  SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bytea[], $5::text[], $6::smallint[], $7::text[], $8::text[], $9::text[],
      $10::text[], $11::text[], $12::integer[], $13::bigint[], $21::uuid[])
    AS w (invocation, trigger, cause, payload, content_type, priority, namespace, function, revision, reset, on_lost, max_concurrency, memory,
      execution)
), invoked AS (
  INSERT INTO invocations (id, namespace, function, revision, cause_kind, cause, state, attempts, executions, content_type,
      payload, payload_size, created_at)
  SELECT invocation, namespace, function, revision, 'queue', cause::jsonb, 'queued', 0, '{}', content_type,
      payload, octet_length(payload), $14
  FROM work
), queued AS (
  INSERT INTO queue (invocation, namespace, function, revision, cause_kind, reset, on_lost, max_concurrency, memory, priority,
      not_before, trigger, execution, server, lease_until, fence, attempt)
  SELECT invocation, namespace, function, revision, 'queue', reset, on_lost, max_concurrency, memory, priority, now(), trigger, execution,
      CASE WHEN execution IS NOT NULL THEN $22 END,
      CASE WHEN execution IS NOT NULL THEN now() + make_interval(secs => $23) END,
      CASE WHEN execution IS NOT NULL THEN nextval('queue_fence') END, CASE WHEN execution IS NOT NULL THEN 1 ELSE 0 END
  FROM work
  RETURNING execution, fence
), taken AS (
  -- Without a join, which would look through the batch for each of its rows.
  UPDATE messages m
  SET invocation = ($16::uuid[])[array_position($15::uuid[], m.id)], trigger = ($17::uuid[])[array_position($15, m.id)]
  WHERE m.id = ANY($15) AND m.invocation IS NULL AND m.dead_at IS NULL
  RETURNING m.id
), dropped AS (
  DELETE FROM messages m WHERE m.id = ANY($18::uuid[]) AND m.invocation IS NULL RETURNING m.id
), dead AS (
  UPDATE messages m SET dead_at = now(), reason = d.reason
  FROM unnest($19::uuid[], $20::text[]) AS d (message, reason)
  WHERE m.id = d.message AND m.invocation IS NULL AND m.dead_at IS NULL
  RETURNING m.id
)
SELECT (SELECT count(*) FROM taken) + (SELECT count(*) FROM dropped) + (SELECT count(*) FROM dead) AS "done!",
  ARRAY(SELECT execution FROM queued WHERE execution IS NOT NULL ORDER BY execution) AS "executions!",
  ARRAY(SELECT fence FROM queued WHERE execution IS NOT NULL ORDER BY execution) AS "fences!"
