-- Large bodies and long output may stand in files of a server; the row names the file. The columns are NULL where the bytes are in the row
-- itself, which is all that the version before writes and reads: it works on this schema as long as it works alone on its rows.

ALTER TABLE invocations ADD COLUMN payload_file text, ADD COLUMN result_file text;
COMMENT ON COLUMN invocations.payload_file IS 'server/sha256/size of the file that holds the payload; NULL: the payload is in the row.';
COMMENT ON COLUMN invocations.result_file IS 'server/sha256/size of the file that holds the result; NULL: the result, if any, is in the row.';

ALTER TABLE deliveries ADD COLUMN body_file text;
COMMENT ON COLUMN deliveries.body_file IS 'server/sha256/size of the file that holds the body; NULL: the body is in the row.';

-- A chunk whose bytes are in a file has none in the row.
ALTER TABLE log_chunks ADD COLUMN server text, ADD COLUMN length bigint;
ALTER TABLE log_chunks DROP CONSTRAINT log_chunks_bytes_check;
ALTER TABLE log_chunks ADD CONSTRAINT log_chunks_somewhere
    CHECK (num_nonnulls(server, length) = 2 OR (num_nonnulls(server, length) = 0 AND octet_length(bytes) > 0)) NOT VALID;
COMMENT ON COLUMN log_chunks.server IS 'The server whose file of this stream holds the bytes, at the chunk''s own offset; NULL: they are in the row.';
COMMENT ON COLUMN log_chunks.length IS 'How many bytes of the file are the chunk''s; NULL: they are in the row.';
