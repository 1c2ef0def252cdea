//! What `config` answers.

use serde_json::json;

use super::KEY;

/// The document for the runner: who drives, and where jobs keep their things inside the sandbox.
#[must_use]
pub fn config(version: &str, key: &str) -> String {
    json!({
        "driver": {"name": "runlet", "version": version},
        "hostname": "runlet",
        "builds_dir": "/builds",
        "cache_dir": "/cache",
        "builds_dir_is_shared": false,
        "shell": "bash",
        "job_env": {KEY: key},
    })
    .to_string()
}
