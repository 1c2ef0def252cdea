-- Publishes messages. A dedup key that is remembered keeps its message out. The first live message of a key is ready, the others behind.
WITH entry AS (
  SELECT * FROM unnest($3::uuid[], $4::smallint[], $5::text[], $6::text[], $7::text[], $8::bytea[], $9::float8[], $10::text[], $11::text[])
    WITH ORDINALITY AS e (id, priority, key, attributes, content_type, body, delay, dedup, dead, nth)
), fresh AS (
  INSERT INTO message_dedup AS d (namespace, queue, key, message, expires)
  SELECT $1, $2, dedup, id, now() + make_interval(secs => $13) FROM entry WHERE dedup IS NOT NULL ORDER BY dedup
  ON CONFLICT (namespace, queue, key) DO UPDATE SET message = excluded.message, expires = excluded.expires WHERE d.expires < now()
  RETURNING message
), new AS (
  SELECT e.*, row_number() OVER (PARTITION BY e.key, e.dead IS NULL ORDER BY e.nth) AS nth_of_key
  FROM entry e WHERE e.dedup IS NULL OR e.id = ANY(ARRAY(SELECT message FROM fresh))
)
INSERT INTO messages (id, namespace, queue, priority, key, attributes, content_type, body, published_at, ready_at, due, behind, dead_at, reason)
SELECT n.id, $1, $2, n.priority, n.key, n.attributes::jsonb, n.content_type, n.body, $12, now() + make_interval(secs => n.delay),
  CASE WHEN n.delay > 0 AND n.dead IS NULL THEN now() + make_interval(secs => n.delay) END,
  n.key IS NOT NULL AND n.dead IS NULL AND (n.nth_of_key > 1 OR EXISTS (SELECT FROM messages m
    WHERE m.namespace = $1 AND m.queue = $2 AND m.key = n.key AND m.dead_at IS NULL)),
  CASE WHEN n.dead IS NOT NULL THEN now() END, n.dead
FROM new n ORDER BY n.nth
RETURNING id
