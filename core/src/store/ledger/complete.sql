-- Writes synchronous calls from start to end at once. Those that are there already are passed over; returns them.
WITH entry AS (
  SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
      $9::text[], $10::bytea[], $11::bigint[], $12::timestamptz[], $13::timestamptz[], $14::text[], $15::text[], $16::text[],
      $17::text[], $18::bytea[], $19::text[], $20::text[], $21::text[], $22::timestamptz[], $23::bigint[], $24::bigint[],
      $25::text[], $26::bigint[], $27::bigint[], $28::timestamptz[], $30::text[], $31::text[],
      $32::bigint[], $33::bigint[])
    AS e (invocation, execution, namespace, function, revision, cause_kind, cause, reset, content_type, payload, payload_size,
      deadline, created_at, state, invocation_state, outcome, detail, result, result_type, start_kind, sandbox, started_at,
      cpu_us, memory_peak, remains, log_bytes, log_dropped, at, payload_file, result_file,
      wait_us, start_us)
), called AS (
  INSERT INTO invocations (id, namespace, function, revision, cause_kind, cause, state, outcome, detail, attempts, executions,
      content_type, payload, payload_size, result, result_type, deadline, created_at, finished_at, payload_file,
      result_file)
  SELECT invocation, namespace, function, revision, cause_kind, cause::jsonb, invocation_state, outcome, detail::jsonb, 1,
      ARRAY[execution], content_type, payload, payload_size, result, result_type, deadline, created_at, at, payload_file,
      result_file
  FROM entry
  ON CONFLICT DO NOTHING
), ended AS (
  INSERT INTO executions (id, invocation, namespace, function, revision, cause_kind, attempt, state, outcome, detail, server,
      start_kind, sandbox, reset, cpu_us, memory_peak, remains, log_bytes, log_dropped, created_at, started_at, finished_at,
      wait_us, start_us)
  SELECT execution, invocation, namespace, function, revision, cause_kind, 1, state, outcome, detail::jsonb, $29, start_kind,
      sandbox, reset, cpu_us, memory_peak, remains::jsonb, log_bytes, log_dropped, created_at, started_at, at, wait_us,
      start_us
  FROM entry
  ON CONFLICT DO NOTHING
  RETURNING id
)
SELECT execution AS "execution!" FROM entry WHERE execution NOT IN (SELECT id FROM ended)
