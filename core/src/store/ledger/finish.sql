-- Writes the ends of executions that have not ended and whose fence holds; returns those. All or nothing.
-- `held` locks the queue rows of claims that are still what the fence says; `ended` guards the state (no outcome: starting or running).
-- All the rest follows `ended`. The ranges ($21 to $24) spare it the partitions that hold none of the batch.
WITH entry AS (
  SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bytea[],
      $9::text[], $10::text[], $11::text[], $12::timestamptz[], $13::bigint[], $14::bigint[], $15::text[], $16::bigint[],
      $17::bigint[], $18::double precision[], $19::timestamptz[], $25::text[], $26::bigint[], $27::bigint[], $28::text[])
    AS e (execution, invocation, fence, state, invocation_state, outcome, detail, result, result_type, start_kind, sandbox,
      started_at, cpu_us, memory_peak, remains, log_bytes, log_dropped, pause, at, result_file, wait_us, start_us, destination)
), held AS (
  SELECT q.invocation, q.namespace, q.function, e.pause IS NOT NULL AND NOT q.cancelled
        AND (e.outcome <> 'lost' OR q.attempt < $20)
        AND (q.deadline IS NULL OR q.deadline > now() + make_interval(secs => e.pause)) AS again,
      q.cancelled AND e.outcome <> 'ok' AS cancelled
  FROM queue q JOIN entry e ON e.invocation = q.invocation AND e.fence = q.fence
  WHERE q.invocation = ANY(ARRAY(SELECT invocation FROM entry WHERE fence IS NOT NULL))
  FOR UPDATE OF q
), ended AS (
  UPDATE executions x
  SET state = e.state, outcome = e.outcome, detail = e.detail::jsonb, start_kind = COALESCE(e.start_kind, x.start_kind),
      sandbox = COALESCE(e.sandbox, x.sandbox), started_at = COALESCE(e.started_at, x.started_at), cpu_us = e.cpu_us,
      memory_peak = e.memory_peak, remains = e.remains::jsonb, log_bytes = e.log_bytes, log_dropped = e.log_dropped,
      finished_at = e.at, wait_us = e.wait_us, start_us = e.start_us
  FROM entry e LEFT JOIN held h ON h.invocation = e.invocation
  WHERE x.id = e.execution AND x.id BETWEEN $21 AND $22 AND x.outcome IS NULL
    AND (e.fence IS NULL OR h.invocation IS NOT NULL)
  RETURNING e.*, h.namespace, h.function, COALESCE(h.again, false) AS again, COALESCE(h.cancelled, false) AS cancelled,
    h.invocation IS NOT NULL AND e.invocation_state IN ('failed', 'expired') AND NOT h.again AND NOT h.cancelled AS dead
), closed AS (
  UPDATE invocations i
  SET state = CASE WHEN d.again THEN 'queued' WHEN d.cancelled THEN 'cancelled' ELSE d.invocation_state END,
      outcome = d.outcome, detail = d.detail::jsonb,
      result = d.result, result_type = d.result_type, result_file = d.result_file, dead_letter = d.dead,
      finished_at = CASE WHEN d.again THEN NULL ELSE d.at END
  FROM ended d WHERE i.id = d.invocation AND i.id BETWEEN $23 AND $24
), buried AS (
  INSERT INTO dead_letters (invocation, namespace, function, outcome, created_at)
  SELECT invocation, namespace, function, outcome, at FROM ended WHERE dead
  ON CONFLICT DO NOTHING
), told AS (
  INSERT INTO outbox (invocation, namespace, function, event, destination, next_at, created_at)
  SELECT invocation, namespace, function, CASE WHEN dead THEN 'failed' ELSE 'succeeded' END, destination::jsonb, now(), at
  FROM ended WHERE destination IS NOT NULL AND (dead OR invocation_state = 'succeeded') AND namespace IS NOT NULL
  ON CONFLICT DO NOTHING
), requeued AS (
  UPDATE queue q
  SET lease_until = NULL, server = NULL, fence = NULL, execution = NULL, not_before = now() + make_interval(secs => d.pause)
  FROM ended d
  WHERE q.invocation = ANY(ARRAY(SELECT invocation FROM ended WHERE again)) AND d.invocation = q.invocation
), gone AS (
  DELETE FROM queue q WHERE q.invocation = ANY(ARRAY(SELECT invocation FROM ended WHERE fence IS NOT NULL AND NOT again))
), released AS (
  UPDATE dedup_keys k SET released = true
  WHERE k.invocation = ANY(ARRAY(
    SELECT invocation FROM ended WHERE fence IS NOT NULL AND NOT again AND invocation_state <> 'succeeded'))
)
SELECT execution AS "execution!", invocation AS "invocation!", again AS "again!", fence IS NOT NULL AS "queued!" FROM ended
