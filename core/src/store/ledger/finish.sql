-- Writes the ends of calls that have not ended; returns those. All or nothing. `ended` guards the state (no outcome: starting or running),
-- the invocation follows it. The ranges ($18 to $21) spare it the partitions that hold none of the batch.
WITH entry AS (
  SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[],
      $8::text[], $9::text[], $10::text[], $11::timestamptz[], $12::bigint[], $13::bigint[], $14::text[], $15::bigint[],
      $16::bigint[], $17::timestamptz[], $22::text[], $23::bigint[], $24::bigint[])
    AS e (execution, invocation, state, invocation_state, outcome, detail, result, result_type, start_kind, sandbox,
      started_at, cpu_us, memory_peak, remains, log_bytes, log_dropped, at, result_file, wait_us, start_us)
), ended AS (
  SELECT e.*, x.namespace, x.function, x.revision, x.cause_kind, x.attempt, x.server, x.reset, x.created_at
  FROM entry e CROSS JOIN LATERAL (
    SELECT * FROM executions w WHERE w.id = e.execution AND w.id BETWEEN $18 AND $19 AND w.outcome IS NULL FOR UPDATE
  ) x
), recorded AS (
  -- Each is updated as what is there already: a join of the batch with the table would look through the batch for each of its rows.
  INSERT INTO executions AS x (id, invocation, namespace, function, revision, cause_kind, attempt, server, reset, created_at, state, outcome,
    detail, start_kind, sandbox, started_at, cpu_us, memory_peak, remains, log_bytes, log_dropped, finished_at, wait_us, start_us)
  SELECT execution, invocation, namespace, function, revision, cause_kind, attempt, server, reset, created_at, state, outcome,
    detail::jsonb, start_kind, sandbox, started_at, cpu_us, memory_peak, remains::jsonb, log_bytes, log_dropped, at, wait_us, start_us
  FROM ended
  ON CONFLICT (id) DO UPDATE
  SET state = excluded.state, outcome = excluded.outcome, detail = excluded.detail,
      start_kind = COALESCE(excluded.start_kind, x.start_kind), sandbox = COALESCE(excluded.sandbox, x.sandbox),
      started_at = COALESCE(excluded.started_at, x.started_at), cpu_us = excluded.cpu_us, memory_peak = excluded.memory_peak,
      remains = excluded.remains, log_bytes = excluded.log_bytes, log_dropped = excluded.log_dropped,
      finished_at = excluded.finished_at, wait_us = excluded.wait_us, start_us = excluded.start_us
), closed AS (
  -- The same; nothing is inserted where there is none, so what may not be NULL need not mean anything.
  INSERT INTO invocations AS i (id, namespace, function, revision, cause_kind, cause, payload, payload_size, created_at, attempts, executions,
    state, outcome, detail, result, result_type, result_file, finished_at)
  SELECT d.invocation, d.namespace, d.function, d.revision, d.cause_kind, '{}', '', 0, d.at, d.attempt, ARRAY[d.execution],
    d.invocation_state, d.outcome, d.detail::jsonb, d.result, d.result_type, d.result_file, d.at
  FROM ended d CROSS JOIN LATERAL (SELECT FROM invocations h WHERE h.id = d.invocation AND h.id BETWEEN $20 AND $21 LIMIT 1) h
  ON CONFLICT (id) DO UPDATE
  SET state = excluded.state, outcome = excluded.outcome, detail = excluded.detail, result = excluded.result,
      result_type = excluded.result_type, result_file = excluded.result_file, finished_at = excluded.finished_at
)
SELECT execution AS "execution!" FROM ended
