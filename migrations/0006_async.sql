-- Asynchronous work that failed for good, and who is told how asynchronous work ended.

-- Another function is invoked with the end of an invocation: a door of its own.
ALTER TABLE invocations
    DROP CONSTRAINT invocations_cause_kind_check,
    ADD CONSTRAINT invocations_cause_kind_check
        CHECK (cause_kind IN ('http', 'webhook', 'cron', 'queue', 'ci', 'rerun', 'lease', 'chain')) NOT VALID;
ALTER TABLE executions
    DROP CONSTRAINT executions_cause_kind_check,
    ADD CONSTRAINT executions_cause_kind_check
        CHECK (cause_kind IN ('http', 'webhook', 'cron', 'queue', 'ci', 'rerun', 'lease', 'chain')) NOT VALID;

-- A table of its own: no index of the history has to be made for it, and a list of a few need not look through days of it.
CREATE TABLE dead_letters (
    invocation uuid PRIMARY KEY,
    namespace  text NOT NULL,
    function   text NOT NULL,
    outcome    text,
    created_at timestamptz NOT NULL
);
CREATE INDEX dead_letters_of_namespace ON dead_letters (namespace, invocation);
COMMENT ON TABLE dead_letters IS 'Accepted asynchronous work that failed for good or expired; a row goes when somebody redrives or drops it, or with its day.';
COMMENT ON COLUMN dead_letters.invocation IS 'The invocation.';
COMMENT ON COLUMN dead_letters.namespace IS 'Owner.';
COMMENT ON COLUMN dead_letters.function IS 'The function.';
COMMENT ON COLUMN dead_letters.outcome IS 'How its last execution ended; NULL: there was none.';
COMMENT ON COLUMN dead_letters.created_at IS 'When it failed.';

CREATE TABLE outbox (
    invocation  uuid PRIMARY KEY,
    namespace   text NOT NULL,
    function    text NOT NULL,
    event       text NOT NULL CHECK (event IN ('succeeded', 'failed')),
    destination jsonb NOT NULL,
    state       text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'delivered', 'failed', 'cancelled')),
    tries       integer NOT NULL DEFAULT 0,
    next_at     timestamptz NOT NULL,
    history     jsonb NOT NULL DEFAULT '[]',
    created_at  timestamptz NOT NULL,
    finished_at timestamptz,
    CHECK ((state = 'waiting') = (finished_at IS NULL))
) WITH (fillfactor = 70);
CREATE INDEX outbox_waiting ON outbox (next_at) WHERE state = 'waiting';
CREATE INDEX outbox_of_namespace ON outbox (namespace, invocation);
COMMENT ON TABLE outbox IS 'Callbacks: ends of invocations that somebody is to be told of, made in the transaction of the end.';
COMMENT ON COLUMN outbox.invocation IS 'The invocation that ended; its id is the id of the message.';
COMMENT ON COLUMN outbox.namespace IS 'Owner.';
COMMENT ON COLUMN outbox.function IS 'Its function.';
COMMENT ON COLUMN outbox.event IS 'How it ended.';
COMMENT ON COLUMN outbox.destination IS 'Who is told, as the manifest of the revision says.';
COMMENT ON COLUMN outbox.state IS 'What became of it.';
COMMENT ON COLUMN outbox.tries IS 'Tries that have begun; goes with every write about one, so that a late one changes nothing.';
COMMENT ON COLUMN outbox.next_at IS 'Not to be tried before this moment; while one is at it, when others may take it over.';
COMMENT ON COLUMN outbox.history IS 'The last tries: when, what came of each, how long it took.';
COMMENT ON COLUMN outbox.created_at IS 'When the invocation ended.';
COMMENT ON COLUMN outbox.finished_at IS 'When it was told, given up or cancelled; NULL: it waits.';
