-- The bill of an execution: how long it waited, and how long its sandbox took to be there.

ALTER TABLE executions ADD COLUMN wait_us bigint, ADD COLUMN start_us bigint;
COMMENT ON COLUMN executions.wait_us IS 'From when it was accepted, or due, until it had its turn and a place, microseconds; NULL: not known.';
COMMENT ON COLUMN executions.start_us IS 'From then until the code was given the event, microseconds: what making the sandbox took.';
