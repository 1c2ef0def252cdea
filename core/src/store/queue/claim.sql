-- Claims what is due and can start, by fair shares. A lane is what waits of a function with one priority. `lane` has those that the
-- caller knows, with the moments and ids from which on something may be due ($18, $19), and finds the others between them, one probe of
-- the index each: neither the backlog of a function nor what is left of it in the index costs the others anything. `seen` has those where
-- something is due, and the best of it; `head` the functions that have a free turn, and `first` puts them in order: only the first $1 of them
-- can be dealt anything. A share is what the namespace has had more than others, in pieces over its weight, with what goes before in it;
-- within a namespace the same of functions, within a function the best work is first. `due` locks as much of each as it has turns, `turn`,
-- `fair` and `fitting` count through it, `slot` has what can start, and `claimed` takes it out of the waiting, each with one of the execution ids that the
-- caller made.
-- History is only read, one probe for each, and only that of the last hour ($15 to $16), which spares the partitions of all other days: what
-- is older the caller reads for itself. There is always a first row: it says what was seen, and may have nothing claimed.
WITH RECURSIVE lane AS (
  SELECT lane, since, least, lead(lane, 1, '~') OVER (ORDER BY lane) AS next
  FROM (
    SELECT '' COLLATE "C" AS lane, '-infinity'::timestamptz AS since, '00000000-0000-0000-0000-000000000000'::uuid AS least
    UNION ALL
    SELECT lane COLLATE "C", COALESCE(since, '-infinity'), least
    FROM unnest($17::text[], $18::timestamptz[], $19::uuid[]) AS k (lane, since, least)
  ) known
  UNION ALL
  SELECT found.lane, '-infinity', '00000000-0000-0000-0000-000000000000', l.next
  FROM lane l CROSS JOIN LATERAL (
    -- Nothing of a name comes after '~'.
    SELECT q.lane FROM queue q WHERE q.lease_until IS NULL AND q.lane > l.lane AND q.lane < l.next ORDER BY q.lane LIMIT 1
  ) found
), seen AS (
  SELECT l.lane, best.*
  FROM lane l CROSS JOIN LATERAL (
    SELECT q.namespace, q.function, q.priority, q.max_concurrency, q.not_before, q.invocation FROM queue q
    WHERE q.lane = l.lane AND (q.not_before, q.invocation) >= (l.since, l.least)
      AND q.lease_until IS NULL AND q.not_before <= now() AND (q.deadline IS NULL OR q.deadline > now())
    ORDER BY q.not_before, q.invocation LIMIT 1
  ) best
), head AS (
  SELECT DISTINCT ON (s.namespace, s.function) s.*, COALESCE(u.executions, 0) AS used,
      s.max_concurrency - COALESCE(u.executions, 0) AS turns, COALESCE(u.ahead, 0) AS ahead, COALESCE(o.ahead, 0) AS owner_ahead,
      COALESCE(o.weight, 1) AS weight
  FROM seen s
  LEFT JOIN unnest($5::text[], $6::text[], $7::integer[], $11::float8[]) AS u (namespace, function, executions, ahead)
    ON u.namespace = s.namespace AND u.function = s.function
  LEFT JOIN unnest($12::text[], $13::float8[], $14::float8[]) AS o (namespace, ahead, weight) ON o.namespace = s.namespace
  ORDER BY s.namespace, s.function, s.priority DESC
), first AS (
  SELECT h.*, owner_ahead
      + (row_number() OVER (PARTITION BY namespace ORDER BY ahead, priority DESC, not_before, invocation) - 1) / weight AS share
  FROM head h
  WHERE turns > 0
  ORDER BY share, priority DESC, not_before, invocation
  LIMIT $1
), due AS (
  SELECT d.*, h.used, h.ahead, h.owner_ahead, h.weight
  FROM first h JOIN seen s ON s.namespace = h.namespace AND s.function = h.function
  CROSS JOIN LATERAL (
    SELECT q.invocation, q.namespace, q.function, q.max_concurrency, q.memory, q.priority, q.not_before FROM queue q
    WHERE q.lane = s.lane AND (q.not_before, q.invocation) >= (s.not_before, s.invocation)
      AND q.lease_until IS NULL AND q.not_before <= now() AND (q.deadline IS NULL OR q.deadline > now())
    ORDER BY q.not_before, q.invocation
    LIMIT least($1, h.turns)
    FOR UPDATE OF q SKIP LOCKED
  ) d
), turn AS (
  -- Revisions of a function may differ in their limit.
  SELECT d.*, row_number() OVER (PARTITION BY namespace, function ORDER BY priority DESC, not_before, invocation) AS nth FROM due d
), fair AS (
  SELECT t.*, owner_ahead
      + (row_number() OVER (PARTITION BY namespace ORDER BY ahead + nth, priority DESC, not_before, invocation) - 1) / weight AS share
  FROM turn t WHERE t.used + t.nth <= t.max_concurrency
), fitting AS (
  SELECT t.invocation, row_number() OVER best_first AS n, sum(CASE WHEN t.memory <= $10 THEN t.memory ELSE 0 END) OVER best_first AS memory
  FROM fair t
  WINDOW best_first AS (ORDER BY t.share, t.priority DESC, t.not_before, t.invocation)
), slot AS (
  SELECT f.invocation FROM fitting f
  WHERE f.n <= cardinality($4::uuid[]) AND (f.memory <= $8::bigint OR (f.n = 1 AND $9))
), claimed AS (
  UPDATE queue q
  SET server = $2, lease_until = now() + make_interval(secs => $3), fence = nextval('queue_fence'),
      attempt = q.attempt + 1,
      execution = ($4::uuid[])[array_position(ARRAY(SELECT invocation FROM slot), q.invocation)]
  -- By the array each row is reached through its key, however small the queue was when this was planned. A join with the slots would look through
  -- all of them for each row.
  WHERE q.invocation = ANY(ARRAY(SELECT invocation FROM slot))
  RETURNING q.*
), told AS (
  SELECT row_number() OVER (ORDER BY c.priority DESC, c.not_before, c.invocation) AS nth, c.*, i.cause, i.payload, i.payload_file,
      i.content_type, i.created_at
  FROM claimed c LEFT JOIN LATERAL (
    SELECT * FROM invocations h WHERE h.id = c.invocation AND h.id BETWEEN $15 AND $16 LIMIT 1
  ) i ON true
), looked AS (
  -- What commits now may have begun a moment ago.
  SELECT now() - make_interval(secs => $20) AS late, array_agg(lane) AS lanes, array_agg(not_before) AS since,
      array_agg(invocation) AS best
  FROM seen
)
SELECT l.late AS "late!", CASE WHEN t.nth > 1 THEN NULL ELSE l.lanes END AS lanes, CASE WHEN t.nth > 1 THEN NULL ELSE l.since END AS since,
    CASE WHEN t.nth > 1 THEN NULL ELSE l.best END AS best,
    t.invocation AS "invocation?: InvocationId", t.execution AS "execution?: ExecutionId",
    t.namespace AS "namespace?: Namespace", t.function AS "function?: FunctionName", t.revision AS "revision?: RevisionDigest",
    t.attempt AS "attempt?", t.fence AS "fence?", t.cause AS "cause?", t.payload AS "payload?", t.payload_file AS "payload_file?",
    t.content_type AS "content_type?", t.created_at AS "created_at?", t.priority AS "priority?", t.deadline AS "deadline?",
    t.not_before AS "not_before?"
FROM looked l LEFT JOIN told t ON true
ORDER BY t.nth
