-- The ledger: who owns what (plain tables), what is to be done (queue), and what happened (partitioned by day).
--
-- The partitioned tables have a UUIDv7 as their key and are partitioned by ranges of that key, one range a day (UTC): a look-up by id
-- touches one partition, and the id alone is unique. Nothing refers to a partition by foreign key, so that a day can be dropped as a whole.
-- Words (states, outcomes, kinds) are text with a CHECK. What comes from outside and may hold any byte is bytea; text in jsonb has its NUL
-- characters replaced by U+FFFD before it gets here.

CREATE TABLE namespaces (
    name       text PRIMARY KEY CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE namespaces IS 'Owners of everything else.';
COMMENT ON COLUMN namespaces.name IS 'Name, a DNS label.';
COMMENT ON COLUMN namespaces.created_at IS 'When it was made.';
INSERT INTO namespaces (name) VALUES ('default');

CREATE TABLE tokens (
    id          uuid PRIMARY KEY,
    namespace   text NOT NULL REFERENCES namespaces (name),
    name        text NOT NULL,
    role        text NOT NULL CHECK (role IN ('viewer', 'invoker', 'deployer', 'admin', 'ci')),
    secret_hash bytea NOT NULL UNIQUE CHECK (octet_length(secret_hash) = 32),
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz,
    revoked_at  timestamptz
);
CREATE INDEX tokens_of_namespace ON tokens (namespace, id);
COMMENT ON TABLE tokens IS 'API tokens, without their secrets.';
COMMENT ON COLUMN tokens.id IS 'Id (tok_).';
COMMENT ON COLUMN tokens.namespace IS 'The namespace it is good for.';
COMMENT ON COLUMN tokens.name IS 'What people call it.';
COMMENT ON COLUMN tokens.role IS 'What it may do.';
COMMENT ON COLUMN tokens.secret_hash IS 'SHA-256 of the secret.';
COMMENT ON COLUMN tokens.created_at IS 'When it was made.';
COMMENT ON COLUMN tokens.expires_at IS 'When it ends to be good; NULL: never.';
COMMENT ON COLUMN tokens.revoked_at IS 'When it was revoked; NULL: it was not.';

CREATE TABLE revisions (
    namespace  text NOT NULL REFERENCES namespaces (name),
    digest     text NOT NULL CHECK (digest ~ '^sha256:[0-9a-f]{64}$'),
    manifest   jsonb NOT NULL,
    archive    bytea NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (namespace, digest)
);
ALTER TABLE revisions ALTER COLUMN archive SET STORAGE EXTERNAL;
COMMENT ON TABLE revisions IS 'Immutable deploys, by content.';
COMMENT ON COLUMN revisions.namespace IS 'Owner.';
COMMENT ON COLUMN revisions.digest IS 'sha256:<hex> of the normalised archive and settings.';
COMMENT ON COLUMN revisions.manifest IS 'The checked function.toml.';
COMMENT ON COLUMN revisions.archive IS 'The normalised archive.';
COMMENT ON COLUMN revisions.created_at IS 'When it was first deployed.';

CREATE TABLE functions (
    namespace   text NOT NULL REFERENCES namespaces (name),
    name        text NOT NULL CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    revision    text NOT NULL,
    created_at  timestamptz NOT NULL,
    deployed_at timestamptz NOT NULL,
    PRIMARY KEY (namespace, name),
    FOREIGN KEY (namespace, revision) REFERENCES revisions (namespace, digest)
);
COMMENT ON TABLE functions IS 'Named things that users own.';
COMMENT ON COLUMN functions.namespace IS 'Owner.';
COMMENT ON COLUMN functions.name IS 'Name, unique in its namespace.';
COMMENT ON COLUMN functions.revision IS 'The revision that new invocations get.';
COMMENT ON COLUMN functions.created_at IS 'When it was first deployed.';
COMMENT ON COLUMN functions.deployed_at IS 'When its current revision was deployed.';

CREATE TABLE aliases (
    namespace text NOT NULL,
    function  text NOT NULL,
    name      text NOT NULL,
    revision  text NOT NULL,
    weight    integer NOT NULL CHECK (weight BETWEEN 1 AND 10000),
    PRIMARY KEY (namespace, function, name, revision),
    FOREIGN KEY (namespace, function) REFERENCES functions (namespace, name) ON DELETE CASCADE,
    FOREIGN KEY (namespace, revision) REFERENCES revisions (namespace, digest)
);
COMMENT ON TABLE aliases IS 'Names that point at revisions, weighted; filled by a later version.';
COMMENT ON COLUMN aliases.namespace IS 'Owner.';
COMMENT ON COLUMN aliases.function IS 'The function.';
COMMENT ON COLUMN aliases.name IS 'Name of the alias.';
COMMENT ON COLUMN aliases.revision IS 'One revision that it points at.';
COMMENT ON COLUMN aliases.weight IS 'Share of the invocations that this revision gets.';

CREATE TABLE triggers (
    id        uuid PRIMARY KEY,
    namespace text NOT NULL,
    function  text NOT NULL,
    kind      text NOT NULL CHECK (kind IN ('webhook', 'cron', 'queue', 'http')),
    path      text NOT NULL,
    ordinal   integer NOT NULL,
    spec      jsonb NOT NULL,
    UNIQUE (namespace, function, kind, path, ordinal),
    FOREIGN KEY (namespace, function) REFERENCES functions (namespace, name) ON DELETE CASCADE
);
CREATE INDEX triggers_of_path ON triggers (namespace, path) WHERE kind = 'webhook';
COMMENT ON TABLE triggers IS 'What makes invocations: the triggers of the current revision of each function.';
COMMENT ON COLUMN triggers.id IS 'Id (trg_); a deploy keeps it for the same function, kind, path and ordinal.';
COMMENT ON COLUMN triggers.namespace IS 'Owner.';
COMMENT ON COLUMN triggers.function IS 'The function it starts.';
COMMENT ON COLUMN triggers.kind IS 'Which door.';
COMMENT ON COLUMN triggers.path IS 'webhook: path of the hook.';
COMMENT ON COLUMN triggers.ordinal IS 'Which of the triggers of this function on this path, from 0.';
COMMENT ON COLUMN triggers.spec IS 'What it wants, as in the manifest.';

CREATE SEQUENCE queue_fence;
COMMENT ON SEQUENCE queue_fence IS 'Numbers of claims: a later claim has a higher one.';

CREATE TABLE queue (
    invocation      uuid PRIMARY KEY,
    namespace       text NOT NULL,
    function        text NOT NULL,
    revision        text NOT NULL,
    cause_kind      text NOT NULL,
    reset           text NOT NULL CHECK (reset IN ('warm', 'fork', 'fresh')),
    on_lost         text NOT NULL CHECK (on_lost IN ('retry', 'fail')),
    max_concurrency integer NOT NULL CHECK (max_concurrency > 0),
    memory          bigint NOT NULL CHECK (memory >= 0),
    priority        smallint NOT NULL,
    not_before      timestamptz NOT NULL,
    deadline        timestamptz,
    attempt         integer NOT NULL DEFAULT 0,
    cancelled       boolean NOT NULL DEFAULT false,
    lease_until     timestamptz,
    server          text,
    fence           bigint,
    execution       uuid,
    CHECK (num_nonnulls(lease_until, server, fence, execution) IN (0, 4))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX queue_waiting ON queue (namespace, function, priority DESC, not_before, invocation) WHERE lease_until IS NULL;
CREATE INDEX queue_deadline ON queue (deadline) WHERE deadline IS NOT NULL AND lease_until IS NULL;
CREATE INDEX queue_leased ON queue (server, fence) WHERE lease_until IS NOT NULL;
COMMENT ON TABLE queue IS 'Live asynchronous work; a row leaves it when its invocation is terminal.';
COMMENT ON COLUMN queue.invocation IS 'The invocation.';
COMMENT ON COLUMN queue.namespace IS 'Owner.';
COMMENT ON COLUMN queue.function IS 'The function.';
COMMENT ON COLUMN queue.revision IS 'The revision to run.';
COMMENT ON COLUMN queue.cause_kind IS 'The door it came in by.';
COMMENT ON COLUMN queue.reset IS 'Reset policy of the revision.';
COMMENT ON COLUMN queue.on_lost IS 'What the revision wants done when an execution is lost.';
COMMENT ON COLUMN queue.max_concurrency IS 'Of the revision: most executions of the function at a time on one server.';
COMMENT ON COLUMN queue.memory IS 'Memory that a sandbox of the revision needs, bytes.';
COMMENT ON COLUMN queue.priority IS 'Higher first; 0 is normal.';
COMMENT ON COLUMN queue.not_before IS 'Not to be claimed before this moment.';
COMMENT ON COLUMN queue.deadline IS 'Not to be started after this moment; NULL: no such bound.';
COMMENT ON COLUMN queue.attempt IS 'Executions made so far.';
COMMENT ON COLUMN queue.cancelled IS 'Somebody cancelled it while it ran: it is not executed again.';
COMMENT ON COLUMN queue.lease_until IS 'End of the claim unless its holder extends it; NULL: it waits.';
COMMENT ON COLUMN queue.server IS 'Who holds the claim.';
COMMENT ON COLUMN queue.fence IS 'Number of the claim: a write with another number changes nothing.';
COMMENT ON COLUMN queue.execution IS 'The execution that the claim made.';

CREATE TABLE dedup_keys (
    namespace  text NOT NULL,
    scope      text NOT NULL,
    key        text NOT NULL,
    invocation uuid NOT NULL,
    released   boolean NOT NULL DEFAULT false,
    expires    timestamptz NOT NULL,
    PRIMARY KEY (namespace, scope, key)
);
CREATE INDEX dedup_keys_of_invocation ON dedup_keys (invocation);
CREATE INDEX dedup_keys_expires ON dedup_keys (expires);
COMMENT ON TABLE dedup_keys IS 'Delivery ids and idempotency keys that were seen.';
COMMENT ON COLUMN dedup_keys.namespace IS 'Owner.';
COMMENT ON COLUMN dedup_keys.scope IS 'Who gave the key: api/{function} or hook/{path}/{function}.';
COMMENT ON COLUMN dedup_keys.key IS 'The key; its SHA-256 where it is long.';
COMMENT ON COLUMN dedup_keys.invocation IS 'The invocation that a repeat is answered with.';
COMMENT ON COLUMN dedup_keys.released IS 'The invocation failed for good: the same key runs again.';
COMMENT ON COLUMN dedup_keys.expires IS 'When the key is forgotten.';

CREATE TABLE cron_ticks (
    namespace  text NOT NULL,
    trigger    uuid NOT NULL,
    fires_at   timestamptz NOT NULL,
    invocation uuid,
    PRIMARY KEY (namespace, trigger, fires_at)
);
COMMENT ON TABLE cron_ticks IS 'One row a tick, so that many servers fire it once; filled by a later version.';
COMMENT ON COLUMN cron_ticks.namespace IS 'Owner.';
COMMENT ON COLUMN cron_ticks.trigger IS 'The trigger.';
COMMENT ON COLUMN cron_ticks.fires_at IS 'The moment the schedule names.';
COMMENT ON COLUMN cron_ticks.invocation IS 'The invocation it made; NULL: it was passed over.';

CREATE TABLE refused_bodies (
    namespace text NOT NULL,
    path      text NOT NULL,
    day       date NOT NULL,
    bytes     bigint NOT NULL,
    PRIMARY KEY (namespace, path, day)
);
COMMENT ON TABLE refused_bodies IS 'How much of unverified deliveries was kept, so that strangers cannot fill the disk.';
COMMENT ON COLUMN refused_bodies.namespace IS 'Owner of the hook.';
COMMENT ON COLUMN refused_bodies.path IS 'The hook.';
COMMENT ON COLUMN refused_bodies.day IS 'The day, UTC.';
COMMENT ON COLUMN refused_bodies.bytes IS 'Bytes of bodies kept on that day.';

CREATE TABLE invocations (
    id           uuid PRIMARY KEY,
    namespace    text NOT NULL,
    function     text NOT NULL,
    revision     text NOT NULL,
    cause_kind   text NOT NULL CHECK (cause_kind IN ('http', 'webhook', 'cron', 'queue', 'ci', 'rerun')),
    cause        jsonb NOT NULL,
    state        text NOT NULL
        CHECK (state IN ('held', 'queued', 'running', 'succeeded', 'failed', 'cancelled', 'expired')),
    outcome      text CHECK (outcome IN
        ('ok', 'error', 'exit', 'signal', 'oom', 'timeout', 'cancelled', 'init_error', 'runtime_error', 'lost')),
    detail       jsonb,
    attempts     integer NOT NULL,
    executions   uuid[] NOT NULL,
    dead_letter  boolean NOT NULL DEFAULT false,
    content_type text,
    payload      bytea NOT NULL,
    payload_size bigint NOT NULL,
    result       bytea,
    result_type  text,
    deadline     timestamptz,
    created_at   timestamptz NOT NULL,
    finished_at  timestamptz
) PARTITION BY RANGE (id);
CREATE INDEX ON invocations (namespace, id);
COMMENT ON TABLE invocations IS '"Run this once"; partitioned by the day of the id.';
COMMENT ON COLUMN invocations.id IS 'Id (inv_), a UUIDv7.';
COMMENT ON COLUMN invocations.namespace IS 'Owner.';
COMMENT ON COLUMN invocations.function IS 'The function.';
COMMENT ON COLUMN invocations.revision IS 'The revision it was accepted for.';
COMMENT ON COLUMN invocations.cause_kind IS 'The door it came in by.';
COMMENT ON COLUMN invocations.cause IS 'Why, as the code sees it.';
COMMENT ON COLUMN invocations.state IS 'Its state.';
COMMENT ON COLUMN invocations.outcome IS 'How its last execution ended.';
COMMENT ON COLUMN invocations.detail IS 'exit_code, signal and error of that outcome; NULL: there are none.';
COMMENT ON COLUMN invocations.attempts IS 'Executions so far.';
COMMENT ON COLUMN invocations.executions IS 'Their ids, oldest first.';
COMMENT ON COLUMN invocations.dead_letter IS 'It failed for good and is kept for somebody to look at.';
COMMENT ON COLUMN invocations.content_type IS 'Content type of the payload, as received.';
COMMENT ON COLUMN invocations.payload IS 'The raw body.';
COMMENT ON COLUMN invocations.payload_size IS 'Size of the raw body, bytes.';
COMMENT ON COLUMN invocations.result IS 'What the code returned.';
COMMENT ON COLUMN invocations.result_type IS 'Content type of the result.';
COMMENT ON COLUMN invocations.deadline IS 'Not to be started after this moment; NULL: no such bound.';
COMMENT ON COLUMN invocations.created_at IS 'When it was accepted.';
COMMENT ON COLUMN invocations.finished_at IS 'When it became terminal.';

CREATE TABLE executions (
    id          uuid PRIMARY KEY,
    invocation  uuid NOT NULL,
    namespace   text NOT NULL,
    function    text NOT NULL,
    revision    text NOT NULL,
    cause_kind  text NOT NULL CHECK (cause_kind IN ('http', 'webhook', 'cron', 'queue', 'ci', 'rerun')),
    attempt     integer NOT NULL CHECK (attempt > 0),
    state       text NOT NULL CHECK (state IN ('starting', 'running', 'succeeded', 'failed', 'cancelled', 'lost')),
    outcome     text CHECK (outcome IN
        ('ok', 'error', 'exit', 'signal', 'oom', 'timeout', 'cancelled', 'init_error', 'runtime_error', 'lost')),
    detail      jsonb,
    server      text NOT NULL,
    start_kind  text CHECK (start_kind IN ('cold', 'warm')),
    sandbox     text,
    reset       text NOT NULL CHECK (reset IN ('warm', 'fork', 'fresh')),
    cpu_us      bigint,
    memory_peak bigint,
    remains     jsonb,
    log_bytes   bigint NOT NULL DEFAULT 0,
    log_dropped bigint NOT NULL DEFAULT 0,
    created_at  timestamptz NOT NULL,
    started_at  timestamptz,
    finished_at timestamptz,
    CHECK ((state IN ('starting', 'running')) = (outcome IS NULL))
) PARTITION BY RANGE (id);
CREATE INDEX ON executions (namespace, id);
CREATE INDEX ON executions (namespace, function, id);
-- No index on state: the end of an execution must not touch an index (heap-only update).
COMMENT ON TABLE executions IS 'Attempts at invocations; partitioned by the day of the id.';
COMMENT ON COLUMN executions.id IS 'Id (exe_), a UUIDv7.';
COMMENT ON COLUMN executions.invocation IS 'The invocation it is an attempt at.';
COMMENT ON COLUMN executions.namespace IS 'Owner.';
COMMENT ON COLUMN executions.function IS 'The function.';
COMMENT ON COLUMN executions.revision IS 'The revision that ran.';
COMMENT ON COLUMN executions.cause_kind IS 'The door the invocation came in by.';
COMMENT ON COLUMN executions.attempt IS '1 for the first.';
COMMENT ON COLUMN executions.state IS 'Its state.';
COMMENT ON COLUMN executions.outcome IS 'How it ended; NULL: it has not.';
COMMENT ON COLUMN executions.detail IS 'exit_code, signal and error of the outcome; NULL: there are none.';
COMMENT ON COLUMN executions.server IS 'The server that runs it.';
COMMENT ON COLUMN executions.start_kind IS 'How its sandbox came to be.';
COMMENT ON COLUMN executions.sandbox IS 'Name of the sandbox.';
COMMENT ON COLUMN executions.reset IS 'Reset policy in force.';
COMMENT ON COLUMN executions.cpu_us IS 'CPU time of the sandbox, microseconds; NULL: unknown.';
COMMENT ON COLUMN executions.memory_peak IS 'Peak memory of the sandbox, bytes; NULL: unknown.';
COMMENT ON COLUMN executions.remains IS 'What was left of the sandbox after its end; NULL: it did not end with this execution.';
COMMENT ON COLUMN executions.log_bytes IS 'Bytes of output on record.';
COMMENT ON COLUMN executions.log_dropped IS 'Bytes of output that were not kept.';
COMMENT ON COLUMN executions.created_at IS 'When it was put on record.';
COMMENT ON COLUMN executions.started_at IS 'When the code was given the event.';
COMMENT ON COLUMN executions.finished_at IS 'When it ended.';

CREATE TABLE deliveries (
    id          uuid PRIMARY KEY,
    namespace   text NOT NULL,
    path        text NOT NULL,
    adapter     text NOT NULL,
    provider_id text,
    event       text,
    headers     jsonb NOT NULL,
    source      text NOT NULL,
    body        bytea NOT NULL,
    body_size   bigint NOT NULL,
    verdict     text NOT NULL CHECK (verdict IN ('accepted', 'duplicate', 'ignored', 'bad_signature', 'bad_body')),
    reasons     text[] NOT NULL,
    invocations uuid[] NOT NULL,
    received_at timestamptz NOT NULL
) PARTITION BY RANGE (id);
CREATE INDEX ON deliveries (namespace, id);
CREATE INDEX ON deliveries (namespace, path, id);
COMMENT ON TABLE deliveries IS 'Raw webhooks as received, with the verdict on them; partitioned by the day of the id.';
COMMENT ON COLUMN deliveries.id IS 'Id (dlv_), a UUIDv7.';
COMMENT ON COLUMN deliveries.namespace IS 'Owner of the hook.';
COMMENT ON COLUMN deliveries.path IS 'The hook.';
COMMENT ON COLUMN deliveries.adapter IS 'Who read it.';
COMMENT ON COLUMN deliveries.provider_id IS 'The sender''s id of it.';
COMMENT ON COLUMN deliveries.event IS 'Name of the event.';
COMMENT ON COLUMN deliveries.headers IS 'Headers; values of credential headers are keyed fingerprints.';
COMMENT ON COLUMN deliveries.source IS 'Address of the sender.';
COMMENT ON COLUMN deliveries.body IS 'The raw body; of refused deliveries it may be cut or empty.';
COMMENT ON COLUMN deliveries.body_size IS 'Size of the body as received, bytes.';
COMMENT ON COLUMN deliveries.verdict IS 'What was decided.';
COMMENT ON COLUMN deliveries.reasons IS 'What matched, or why not.';
COMMENT ON COLUMN deliveries.invocations IS 'Its invocations: new ones, or those that a repeated id names.';
COMMENT ON COLUMN deliveries.received_at IS 'When it was received.';

CREATE TABLE log_chunks (
    execution uuid NOT NULL,
    stream    text NOT NULL CHECK (stream IN ('stdout', 'stderr')),
    at        bigint NOT NULL CHECK (at >= 0),
    namespace text NOT NULL,
    bytes     bytea NOT NULL CHECK (octet_length(bytes) > 0),
    PRIMARY KEY (execution, stream, at)
) PARTITION BY RANGE (execution);
COMMENT ON TABLE log_chunks IS 'Output of executions; partitioned by the day of the execution''s id.';
COMMENT ON COLUMN log_chunks.execution IS 'The execution.';
COMMENT ON COLUMN log_chunks.stream IS 'Which stream.';
COMMENT ON COLUMN log_chunks.at IS 'Offset of the first byte in the stream.';
COMMENT ON COLUMN log_chunks.namespace IS 'Owner.';
COMMENT ON COLUMN log_chunks.bytes IS 'The bytes.';

-- The lowest UUIDv7 of a day: 48 bits of milliseconds, and zeros.
CREATE FUNCTION runlet_day_start(day date) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT (lpad(to_hex((day - DATE '1970-01-01')::bigint * 86400000), 12, '0') || repeat('0', 20))::uuid
$$;
COMMENT ON FUNCTION runlet_day_start IS 'The lowest UUIDv7 of a day (UTC): the lower bound of its partitions.';

-- A partition is filled in first and attached then, for ATTACH lets readers and writers of the other days go on.
CREATE FUNCTION runlet_make_partitions(first_day date, last_day date) RETURNS integer
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
            -- Rows are written once and ended once: room on their page lets the end stay on it.
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL) WITH (fillfactor = %s)', part, parent,
                CASE WHEN parent IN ('invocations', 'executions') THEN 60 ELSE 100 END);
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                parent, part, runlet_day_start(day), runlet_day_start(day + 1));
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$;
COMMENT ON FUNCTION runlet_make_partitions IS 'Makes the partitions of all days of a range where they are missing; returns how many it made.';
