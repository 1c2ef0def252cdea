-- See 0023. The checks of partitions go with those of their parent.

ALTER TABLE executions
    DROP CONSTRAINT executions_cause_kind_check,
    DROP CONSTRAINT executions_function_check,
    DROP CONSTRAINT executions_attempt_check,
    DROP CONSTRAINT executions_state_check,
    DROP CONSTRAINT executions_outcome_check,
    DROP CONSTRAINT executions_start_kind_check,
    DROP CONSTRAINT executions_reset_check,
    DROP CONSTRAINT executions_check;

-- Executions keep less room free from now on: most of them are written once, with their end.
CREATE OR REPLACE FUNCTION runlet_make_partitions(first_day date, last_day date) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    day    date;
    part   text;
    made   integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('runlet_make_partitions', 0));
    FOREACH parent IN ARRAY ARRAY['invocations', 'executions', 'deliveries', 'log_chunks'] LOOP
        FOR n IN 0..(last_day - first_day) LOOP
            day := first_day + n;
            part := parent || '_' || to_char(day, 'YYYYMMDD');
            CONTINUE WHEN to_regclass(quote_ident(part)) IS NOT NULL;
            -- Room on their page lets the ends of invocations stay on it.
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL) WITH (fillfactor = %s)', part, parent,
                CASE parent WHEN 'invocations' THEN 60 WHEN 'executions' THEN 90 ELSE 100 END);
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                parent, part, runlet_day_start(day), runlet_day_start(day + 1));
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$;
