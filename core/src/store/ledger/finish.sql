-- Writes the ends of calls that have not ended; returns those. All or nothing. `ended` guards the state (no outcome: starting or running),
-- the invocation follows it. The ranges ($18 to $21) spare it the partitions that hold none of the batch.
WITH entry AS (
  SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[],
      $8::text[], $9::text[], $10::text[], $11::timestamptz[], $12::bigint[], $13::bigint[], $14::text[], $15::bigint[],
      $16::bigint[], $17::timestamptz[], $22::text[], $23::bigint[], $24::bigint[])
    AS e (execution, invocation, state, invocation_state, outcome, detail, result, result_type, start_kind, sandbox,
      started_at, cpu_us, memory_peak, remains, log_bytes, log_dropped, at, result_file, wait_us, start_us)
), ended AS (
  UPDATE executions x
  SET state = e.state, outcome = e.outcome, detail = e.detail::jsonb, start_kind = COALESCE(e.start_kind, x.start_kind),
      sandbox = COALESCE(e.sandbox, x.sandbox), started_at = COALESCE(e.started_at, x.started_at), cpu_us = e.cpu_us,
      memory_peak = e.memory_peak, remains = e.remains::jsonb, log_bytes = e.log_bytes, log_dropped = e.log_dropped,
      finished_at = e.at, wait_us = e.wait_us, start_us = e.start_us
  FROM entry e
  WHERE x.id = ANY($1) AND e.execution = x.id AND x.id BETWEEN $18 AND $19 AND x.outcome IS NULL
  RETURNING e.*
), closed AS (
  UPDATE invocations i
  SET state = d.invocation_state, outcome = d.outcome, detail = d.detail::jsonb, result = d.result, result_type = d.result_type,
      result_file = d.result_file, finished_at = d.at
  FROM ended d WHERE i.id = ANY(ARRAY(SELECT invocation FROM ended)) AND d.invocation = i.id AND i.id BETWEEN $20 AND $21
)
SELECT execution AS "execution!" FROM ended
