-- Finds the functions that want sandboxes to be ready (`min_warm`) without reading every manifest.

CREATE INDEX revisions_kept_warm ON revisions (namespace, digest) WHERE manifest ? 'min_warm';
