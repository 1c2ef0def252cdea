-- Leases on record: jobs of CI systems, and sandboxes that people run commands in. Such work has no function of its own, and its
-- executions are steps of one invocation.

ALTER TABLE invocations
    ALTER COLUMN function DROP NOT NULL,
    ALTER COLUMN revision DROP NOT NULL,
    DROP CONSTRAINT invocations_cause_kind_check,
    ADD CONSTRAINT invocations_cause_kind_check
        CHECK (cause_kind IN ('http', 'webhook', 'cron', 'queue', 'ci', 'rerun', 'lease')) NOT VALID,
    ADD CONSTRAINT invocations_function_check CHECK (function IS NOT NULL OR cause_kind IN ('ci', 'lease')) NOT VALID;
ALTER TABLE executions
    ALTER COLUMN function DROP NOT NULL,
    ALTER COLUMN revision DROP NOT NULL,
    DROP CONSTRAINT executions_cause_kind_check,
    ADD CONSTRAINT executions_cause_kind_check
        CHECK (cause_kind IN ('http', 'webhook', 'cron', 'queue', 'ci', 'rerun', 'lease')) NOT VALID,
    ADD CONSTRAINT executions_function_check CHECK (function IS NOT NULL OR cause_kind IN ('ci', 'lease')) NOT VALID,
    ADD COLUMN step text;
COMMENT ON COLUMN invocations.function IS 'The function; NULL: a job of a CI system, or a bare sandbox.';
COMMENT ON COLUMN executions.function IS 'The function; NULL: a job of a CI system, or a bare sandbox.';
COMMENT ON COLUMN executions.step IS 'Name of the step of its job, or the command; NULL: it is an attempt at the whole invocation.';
COMMENT ON COLUMN executions.attempt IS '1 for the first; steps of a lease are counted on.';

CREATE TABLE leases (
    id         uuid PRIMARY KEY,
    namespace  text NOT NULL,
    invocation uuid NOT NULL,
    server     text NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX leases_server ON leases (server);
COMMENT ON TABLE leases IS 'Leases that live; a row goes when its invocation is terminal.';
COMMENT ON COLUMN leases.id IS 'Id (lse_), a UUIDv7.';
COMMENT ON COLUMN leases.namespace IS 'Owner.';
COMMENT ON COLUMN leases.invocation IS 'Its invocation, in state running.';
COMMENT ON COLUMN leases.server IS 'The server that has its sandbox.';
COMMENT ON COLUMN leases.created_at IS 'When it was given.';
