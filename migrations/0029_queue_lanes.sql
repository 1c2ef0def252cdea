-- What waits of a function with one priority is a lane, the most urgent of each function first. A word of its own: Postgres ends a scan
-- at a bound of one column, and goes on behind a bound of several.

ALTER TABLE queue ADD COLUMN lane text COLLATE "C" NOT NULL
    GENERATED ALWAYS AS (namespace || '/' || function || '/' || lpad((32767 - priority)::text, 5, '0')) STORED;
COMMENT ON COLUMN queue.lane IS 'Namespace, function and priority turned round: what is claimed in one order.';
CREATE INDEX queue_lanes ON queue (lane, not_before, invocation) WHERE lease_until IS NULL;
-- queue_waiting goes with the next version: servers of the one before claim by it.
