-- Writes the ends of claimed work whose fence holds; returns those. All or nothing. `held` locks the rows of the queue whose claims are
-- still what the fence says; all the rest follows it. The execution is on record only if it was noted while it ran: its row is made or
-- completed here. Messages that an invocation was about go with it where nothing is left to decide. The range ($24 to $25) spares it the
-- partitions that hold no invocation of the batch.
WITH entry AS (
  SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bytea[],
      $9::text[], $10::text[], $11::text[], $12::timestamptz[], $13::bigint[], $14::bigint[], $15::text[], $16::bigint[],
      $17::bigint[], $18::double precision[], $19::timestamptz[], $20::text[], $21::bigint[], $22::bigint[], $23::text[],
      $27::timestamptz[], $28::boolean[])
    AS e (execution, invocation, fence, state, invocation_state, outcome, detail, result, result_type, start_kind, sandbox,
      started_at, cpu_us, memory_peak, remains, log_bytes, log_dropped, pause, at, result_file, wait_us, start_us, destination,
      claimed_at, deals)
), held AS (
  SELECT e.*, q.namespace, q.function, q.revision, q.cause_kind, q.attempt, q.server, q.reset,
      e.pause IS NOT NULL AND NOT q.cancelled
        AND (e.outcome <> 'lost' OR q.attempt < $26)
        AND (q.deadline IS NULL OR q.deadline > now() + make_interval(secs => e.pause)) AS again,
      q.cancelled AND e.outcome <> 'ok' AS cancelled
  FROM entry e CROSS JOIN LATERAL (
    -- One probe of the index for each, whatever the planner thinks of the size of the queue.
    SELECT * FROM queue w WHERE w.invocation = e.invocation AND w.fence = e.fence FOR UPDATE
  ) q
), ended AS (
  SELECT h.*, h.invocation_state IN ('failed', 'expired') AND NOT h.again AND NOT h.cancelled AS dead FROM held h
), recorded AS (
  INSERT INTO executions AS x (id, invocation, namespace, function, revision, cause_kind, attempt, state, outcome, detail, server,
    start_kind, sandbox, reset, cpu_us, memory_peak, remains, log_bytes, log_dropped, created_at, started_at, finished_at,
    wait_us, start_us)
  SELECT execution, invocation, namespace, function, revision, cause_kind, attempt, state, outcome, detail::jsonb, server,
    start_kind, sandbox, reset, cpu_us, memory_peak, remains::jsonb, log_bytes, log_dropped, claimed_at, started_at, at,
    wait_us, start_us
  FROM ended
  ON CONFLICT (id) DO UPDATE
  SET state = excluded.state, outcome = excluded.outcome, detail = excluded.detail,
      start_kind = COALESCE(excluded.start_kind, x.start_kind), sandbox = COALESCE(excluded.sandbox, x.sandbox),
      started_at = COALESCE(excluded.started_at, x.started_at), cpu_us = excluded.cpu_us, memory_peak = excluded.memory_peak,
      remains = excluded.remains, log_bytes = excluded.log_bytes, log_dropped = excluded.log_dropped,
      finished_at = excluded.finished_at, wait_us = excluded.wait_us, start_us = excluded.start_us
), closed AS (
  -- Each is updated as what is there already: a join of the batch with the table would look through the batch for each of its rows. Nothing is inserted
  -- where there is none, so what may not be NULL need not mean anything.
  INSERT INTO invocations AS i (id, namespace, function, revision, cause_kind, cause, payload, payload_size, created_at, state, outcome,
    detail, attempts, executions, result, result_type, result_file, dead_letter, finished_at)
  SELECT d.invocation, d.namespace, d.function, d.revision, d.cause_kind, '{}', '', 0, d.at,
    CASE WHEN d.again THEN 'queued' WHEN d.cancelled THEN 'cancelled' ELSE d.invocation_state END, d.outcome,
    d.detail::jsonb, d.attempt, ARRAY[d.execution], d.result, d.result_type, d.result_file, d.dead, CASE WHEN NOT d.again THEN d.at END
  FROM ended d CROSS JOIN LATERAL (SELECT FROM invocations h WHERE h.id = d.invocation AND h.id BETWEEN $24 AND $25 LIMIT 1) h
  ON CONFLICT (id) DO UPDATE
  SET state = excluded.state, outcome = excluded.outcome, detail = excluded.detail, attempts = excluded.attempts,
      executions = CASE WHEN i.executions @> excluded.executions THEN i.executions ELSE i.executions || excluded.executions END,
      result = excluded.result, result_type = excluded.result_type, result_file = excluded.result_file,
      dead_letter = excluded.dead_letter, finished_at = excluded.finished_at
-- part: where something failed, is to be told or is tried again
), buried AS (
  INSERT INTO dead_letters (invocation, namespace, function, outcome, created_at)
  SELECT invocation, namespace, function, outcome, at FROM ended WHERE dead
  ON CONFLICT DO NOTHING
), told AS (
  INSERT INTO outbox (invocation, namespace, function, event, destination, next_at, created_at)
  SELECT invocation, namespace, function, CASE WHEN dead THEN 'failed' ELSE 'succeeded' END, destination::jsonb, now(), at
  FROM ended WHERE destination IS NOT NULL AND (dead OR invocation_state = 'succeeded')
  ON CONFLICT DO NOTHING
), requeued AS (
  UPDATE queue q
  SET lease_until = NULL, server = NULL, fence = NULL, execution = NULL, not_before = now() + make_interval(secs =>
      (ARRAY(SELECT pause FROM ended WHERE again))[array_position(ARRAY(SELECT invocation FROM ended WHERE again), q.invocation)])
  WHERE q.invocation = ANY(ARRAY(SELECT invocation FROM ended WHERE again))
), released AS (
  UPDATE dedup_keys k SET released = true
  WHERE k.invocation = ANY(ARRAY(SELECT invocation FROM ended WHERE NOT again AND invocation_state <> 'succeeded'))
-- part: where messages are dealt with. One of a key lets the next one go, which settling sees to.
), dealt AS (
  DELETE FROM messages m WHERE m.invocation = ANY(ARRAY(SELECT invocation FROM ended WHERE deals)) AND m.key IS NULL
  RETURNING m.namespace, m.queue
-- part: always
), gone AS (
  DELETE FROM queue q WHERE q.invocation = ANY(ARRAY(SELECT invocation FROM ended WHERE NOT again))
)
SELECT execution, invocation, again, NULL AS "namespace: Namespace", NULL AS queue, NULL::bigint AS messages FROM ended
-- part: where messages are dealt with
UNION ALL SELECT NULL, NULL, NULL, namespace, queue, count(*) FROM dealt GROUP BY namespace, queue
