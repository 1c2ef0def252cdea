-- What is set for a function beside its immutable revision: limits that `runlet set` gives it.

CREATE TABLE function_settings (
    namespace text NOT NULL,
    function  text NOT NULL,
    memory    bigint CHECK (memory > 0),
    cpu       double precision CHECK (cpu > 0),
    pids      integer CHECK (pids > 0),
    set_at    timestamptz NOT NULL,
    PRIMARY KEY (namespace, function),
    FOREIGN KEY (namespace, function) REFERENCES functions (namespace, name) ON DELETE CASCADE
);
COMMENT ON TABLE function_settings IS 'Limits that are set for a function, over those of its revisions.';
COMMENT ON COLUMN function_settings.namespace IS 'Owner.';
COMMENT ON COLUMN function_settings.function IS 'The function.';
COMMENT ON COLUMN function_settings.memory IS 'Memory of its sandboxes, bytes; NULL: what the revision says.';
COMMENT ON COLUMN function_settings.cpu IS 'CPUs of its sandboxes; NULL: what the revision says.';
COMMENT ON COLUMN function_settings.pids IS 'Processes and threads in its sandboxes; NULL: what the revision says.';
COMMENT ON COLUMN function_settings.set_at IS 'When they were set last.';
