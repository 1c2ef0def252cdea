-- What waits of a function is found by lanes, in the order in which they are compared; what of a lane has gone is passed over by the moment.

CREATE INDEX queue_lanes ON queue (namespace, function, (-priority), not_before, invocation) WHERE lease_until IS NULL;
DROP INDEX queue_waiting;
