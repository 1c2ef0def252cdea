-- Messages: named queues, what waits in them, and what became of those that could not be dealt with.
--
-- A message is ready when nothing holds it back: due, behind, invocation and dead_at say what does. Only ready ones are in the index that
-- takes look at, in the order in which they are to go. That order is `place`: a message that comes back gets a new one, so that places
-- only grow and takes need not look again at what they have left behind, even while an old transaction keeps vacuum from clearing it up.

CREATE TABLE queues (
    namespace  text NOT NULL REFERENCES namespaces (name),
    name       text NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
    created_at timestamptz NOT NULL,
    paused_at  timestamptz,
    note       text,
    PRIMARY KEY (namespace, name),
    CHECK (note IS NULL OR paused_at IS NOT NULL)
);
COMMENT ON TABLE queues IS 'Named queues. Whoever takes from one locks its row meanwhile.';
COMMENT ON COLUMN queues.namespace IS 'Owner.';
COMMENT ON COLUMN queues.name IS 'Name; with dots in it: what a trigger takes from a broker.';
COMMENT ON COLUMN queues.created_at IS 'When it was made.';
COMMENT ON COLUMN queues.paused_at IS 'Since when nothing is taken from it; NULL: it is not paused.';
COMMENT ON COLUMN queues.note IS 'Why it is paused.';

CREATE SEQUENCE message_places CACHE 1;
COMMENT ON SEQUENCE message_places IS 'Places of messages: a later one is higher.';

CREATE TABLE messages (
    id           uuid PRIMARY KEY,
    namespace    text NOT NULL,
    queue        text NOT NULL,
    place        bigint NOT NULL DEFAULT nextval('message_places'),
    priority     smallint NOT NULL CHECK (priority BETWEEN 0 AND 9),
    key          text,
    attributes   jsonb NOT NULL,
    content_type text,
    body         bytea NOT NULL,
    published_at timestamptz NOT NULL,
    ready_at     timestamptz NOT NULL,
    attempts     integer NOT NULL DEFAULT 0,
    due          timestamptz,
    behind       boolean NOT NULL DEFAULT false,
    trigger      uuid,
    invocation   uuid,
    dead_at      timestamptz,
    reason       text,
    CHECK (invocation IS NULL OR (due IS NULL AND NOT behind AND dead_at IS NULL)),
    CHECK (dead_at IS NULL OR NOT behind)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX messages_ready ON messages (namespace, queue, priority, place)
    WHERE due IS NULL AND NOT behind AND invocation IS NULL AND dead_at IS NULL;
CREATE INDEX messages_due ON messages (due) WHERE due IS NOT NULL AND NOT behind AND dead_at IS NULL;
CREATE INDEX messages_of_key ON messages (namespace, queue, key, place) WHERE key IS NOT NULL AND dead_at IS NULL;
CREATE INDEX messages_in_flight ON messages (invocation) WHERE invocation IS NOT NULL;
CREATE INDEX messages_dead ON messages (namespace, queue, id) WHERE dead_at IS NOT NULL;
COMMENT ON TABLE messages IS 'Messages that wait, are being dealt with, or are dead letters; a row goes when its message is dealt with.';
COMMENT ON COLUMN messages.id IS 'Id (msg_), a UUIDv7.';
COMMENT ON COLUMN messages.namespace IS 'Owner of the queue.';
COMMENT ON COLUMN messages.queue IS 'The queue.';
COMMENT ON COLUMN messages.place IS 'Ready messages of one priority go in this order; a new one each time it gets ready.';
COMMENT ON COLUMN messages.priority IS 'Higher first; 0 is normal.';
COMMENT ON COLUMN messages.key IS 'Messages with the same key go one at a time, in the order in which they were published; NULL: it has none.';
COMMENT ON COLUMN messages.attributes IS 'What the publisher says about it: texts by name.';
COMMENT ON COLUMN messages.content_type IS 'Content type of the body, as published.';
COMMENT ON COLUMN messages.body IS 'The body.';
COMMENT ON COLUMN messages.published_at IS 'When it was published.';
COMMENT ON COLUMN messages.ready_at IS 'When it was, or will be, ready the last time: the age of a queue, and the window of a batch.';
COMMENT ON COLUMN messages.attempts IS 'Invocations it was in that failed.';
COMMENT ON COLUMN messages.due IS 'Not before this moment: it is delayed, or tried again later; NULL: it is due.';
COMMENT ON COLUMN messages.behind IS 'An earlier message of its key is not dealt with.';
COMMENT ON COLUMN messages.trigger IS 'The trigger that took it.';
COMMENT ON COLUMN messages.invocation IS 'The invocation that deals with it, alone or with others; NULL: none does.';
COMMENT ON COLUMN messages.dead_at IS 'When it became a dead letter; NULL: it is none.';
COMMENT ON COLUMN messages.reason IS 'Why it failed the last time.';

CREATE TABLE message_dedup (
    namespace text NOT NULL,
    queue     text NOT NULL,
    key       text NOT NULL,
    message   uuid NOT NULL,
    expires   timestamptz NOT NULL,
    PRIMARY KEY (namespace, queue, key)
);
CREATE INDEX message_dedup_expires ON message_dedup (expires);
COMMENT ON TABLE message_dedup IS 'Dedup keys of messages that were seen.';
COMMENT ON COLUMN message_dedup.namespace IS 'Owner of the queue.';
COMMENT ON COLUMN message_dedup.queue IS 'The queue.';
COMMENT ON COLUMN message_dedup.key IS 'The key; its SHA-256 where it is long.';
COMMENT ON COLUMN message_dedup.message IS 'The message that had it first.';
COMMENT ON COLUMN message_dedup.expires IS 'When the key is forgotten.';

CREATE TABLE broker_states (
    namespace text NOT NULL,
    trigger   uuid NOT NULL REFERENCES triggers (id) ON DELETE CASCADE,
    server    text NOT NULL,
    state     text NOT NULL CHECK (state IN ('connecting', 'on', 'failing', 'full')),
    error     text,
    since     timestamptz NOT NULL,
    seen_at   timestamptz NOT NULL,
    PRIMARY KEY (trigger, server)
);
COMMENT ON TABLE broker_states IS 'How the servers get on with the brokers of queue triggers.';
COMMENT ON COLUMN broker_states.namespace IS 'Owner.';
COMMENT ON COLUMN broker_states.trigger IS 'The trigger.';
COMMENT ON COLUMN broker_states.server IS 'The server that tells.';
COMMENT ON COLUMN broker_states.state IS 'How it is.';
COMMENT ON COLUMN broker_states.error IS 'What went wrong last; NULL: nothing has since it was on.';
COMMENT ON COLUMN broker_states.since IS 'Since when it is so.';
COMMENT ON COLUMN broker_states.seen_at IS 'When the server looked last: an old one is of a server that is gone.';

CREATE INDEX triggers_of_queue ON triggers (namespace, path) WHERE kind = 'queue';
COMMENT ON COLUMN triggers.path IS 'webhook: path of the hook; queue: name of the queue.';
COMMENT ON COLUMN queue.trigger IS 'The cron trigger whose runs must not overlap with it, or the queue trigger that bounds how many there are; NULL: there is none.';
