-- Schedules: how far each is decided, its ticks with what became of them, and the runs of a trigger that are not over.

CREATE TABLE cron_schedules (
    trigger    uuid PRIMARY KEY REFERENCES triggers (id) ON DELETE CASCADE,
    namespace  text NOT NULL,
    rhythm     text NOT NULL,
    cursor     timestamptz NOT NULL,
    paused_at  timestamptz,
    note       text,
    CHECK (note IS NULL OR paused_at IS NOT NULL)
) WITH (fillfactor = 50);
COMMENT ON TABLE cron_schedules IS 'How far the schedule of each cron trigger is decided.';
COMMENT ON COLUMN cron_schedules.trigger IS 'The trigger.';
COMMENT ON COLUMN cron_schedules.namespace IS 'Owner.';
COMMENT ON COLUMN cron_schedules.rhythm IS 'What its ticks depend on; a deploy with another one starts anew.';
COMMENT ON COLUMN cron_schedules.cursor IS 'All ticks up to this moment are decided; moved in the transaction that makes their invocations.';
COMMENT ON COLUMN cron_schedules.paused_at IS 'Since when it is paused; NULL: it is not.';
COMMENT ON COLUMN cron_schedules.note IS 'Why it is paused.';

ALTER TABLE cron_ticks ADD COLUMN fate text NOT NULL CHECK (fate IN ('fired', 'held', 'skipped', 'missed', 'full'));
ALTER TABLE cron_ticks ADD COLUMN decided_at timestamptz NOT NULL;
CREATE INDEX cron_ticks_of_trigger ON cron_ticks (trigger, fires_at);
COMMENT ON TABLE cron_ticks IS 'One row a tick, so that many servers fire it once: the last ones of each trigger.';
COMMENT ON COLUMN cron_ticks.invocation IS 'The invocation it made; NULL: it was passed over.';
COMMENT ON COLUMN cron_ticks.fate IS 'What became of it: it made an invocation (fired; held: after the one before it) or was passed over.';
COMMENT ON COLUMN cron_ticks.decided_at IS 'When that was decided.';

-- What waits for an earlier run of its trigger has not_before = infinity.
ALTER TABLE queue ADD COLUMN trigger uuid;
CREATE INDEX queue_of_trigger ON queue (trigger, invocation) WHERE trigger IS NOT NULL;
COMMENT ON COLUMN queue.trigger IS 'The cron trigger whose runs must not overlap with it; NULL: there is none.';
COMMENT ON COLUMN queue.not_before IS 'Not to be claimed before this moment; infinity: before the earlier run of its trigger is over.';
