-- What each function has pointed at, so that a rollback knows where to go; and aliases, which are used from now on.

CREATE TABLE deployments (
    namespace    text NOT NULL,
    function     text NOT NULL,
    number       bigint GENERATED ALWAYS AS IDENTITY,
    revision     text NOT NULL,
    at           timestamptz NOT NULL,
    withdrawn_at timestamptz,
    PRIMARY KEY (namespace, function, number),
    FOREIGN KEY (namespace, function) REFERENCES functions (namespace, name) ON DELETE CASCADE,
    FOREIGN KEY (namespace, revision) REFERENCES revisions (namespace, digest)
);
COMMENT ON TABLE deployments IS 'Which revisions a function has pointed at: the newest that is not withdrawn is the current one.';
COMMENT ON COLUMN deployments.namespace IS 'Owner.';
COMMENT ON COLUMN deployments.function IS 'The function.';
COMMENT ON COLUMN deployments.number IS 'Later ones have higher numbers.';
COMMENT ON COLUMN deployments.revision IS 'The revision it was pointed at.';
COMMENT ON COLUMN deployments.at IS 'When.';
COMMENT ON COLUMN deployments.withdrawn_at IS 'When a rollback went back behind it; NULL: none did.';

-- What is known of the time before: revisions by the moment they were first deployed, the current one last.
INSERT INTO deployments (namespace, function, revision, at)
SELECT f.namespace, f.name, r.digest, CASE WHEN r.digest = f.revision THEN f.deployed_at ELSE r.created_at END
FROM functions f
JOIN revisions r ON r.namespace = f.namespace AND r.manifest ->> 'name' = f.name
WHERE r.digest = f.revision OR r.created_at < f.deployed_at
ORDER BY f.namespace, f.name, r.digest = f.revision, r.created_at;

CREATE INDEX revisions_of_function ON revisions (namespace, (manifest ->> 'name'), created_at, digest);
COMMENT ON TABLE aliases IS 'Names that point at revisions, weighted.';
