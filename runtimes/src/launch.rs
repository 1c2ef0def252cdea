//! What has to be started in a sandbox so that a function can be called.
//!
//! It knows the paths inside the sandbox and the two runtimes; it does not know how a process gets there.

use std::collections::BTreeMap;
use std::fmt;

use runlet_core::manifest::{Manifest, RuntimeKind};
use serde_json::json;

/// Where the code of the revision is in the sandbox.
pub const CODE_DIR: &str = "/var/task";

/// Where the files of [`runner_files`] are in the sandbox.
pub const RUNNER_DIR: &str = "/run/runlet";

const PYTHON_RUNNER: &[u8] = include_bytes!("../python/runner.py");

/// The files that a runtime needs in [`RUNNER_DIR`], by name.
#[must_use]
pub fn runner_files(kind: RuntimeKind) -> &'static [(&'static str, &'static [u8])] {
    match kind {
        RuntimeKind::Python => &[("runner.py", PYTHON_RUNNER)],
        RuntimeKind::Exec => &[],
    }
}

/// A program to start, and what to tell it.
#[derive(Clone, PartialEq, Eq)]
pub struct Launch {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub cwd: String,
    /// Whether it speaks the frames of fd 3; otherwise it is one process per call.
    pub channel: bool,
    /// Body of the init frame; null without a channel.
    pub init: serde_json::Value,
}

impl fmt::Debug for Launch {
    /// Environment and init hold resolved secrets: only the names of variables are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launch")
            .field("argv", &self.argv)
            .field("env", &self.env.keys())
            .field("cwd", &self.cwd)
            .field("channel", &self.channel)
            .finish_non_exhaustive()
    }
}

/// What to start for the function that `manifest` describes; `env` is its environment with the secrets looked up.
#[must_use]
pub fn launch(manifest: &Manifest, env: &BTreeMap<String, String>) -> Launch {
    match manifest.runtime {
        RuntimeKind::Python => python(manifest, env),
        RuntimeKind::Exec => exec(manifest, env),
    }
}

/// The environment that every program in a sandbox has.
fn base_env() -> BTreeMap<String, String> {
    let pairs = [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", "/tmp"), ("LANG", "C.UTF-8")];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The function's own environment goes by the init frame, not by the process: an interpreter that is started ahead of
/// time gets it later in the same way.
fn python(manifest: &Manifest, env: &BTreeMap<String, String>) -> Launch {
    let limits = &manifest.limits;
    let timeout_ms = u64::try_from(limits.timeout.0.as_millis()).unwrap_or(u64::MAX);
    let argv = ["/usr/bin/python3", "-I", "-B", "/run/runlet/runner.py"];
    Launch {
        argv: argv.map(str::to_owned).to_vec(),
        env: base_env(),
        cwd: CODE_DIR.to_owned(),
        channel: true,
        init: json!({
            "handler": manifest.handler,
            "code": CODE_DIR,
            "env": env,
            "limits": { "memory": limits.memory.0, "tmp": limits.tmp.0, "timeout_ms": timeout_ms },
        }),
    }
}

fn exec(manifest: &Manifest, env: &BTreeMap<String, String>) -> Launch {
    let mut whole = base_env();
    whole.extend(env.iter().map(|(name, value)| (name.clone(), value.clone())));
    let handler = manifest.handler.trim_start_matches("./");
    Launch {
        argv: vec![format!("{CODE_DIR}/{handler}")],
        env: whole,
        cwd: CODE_DIR.to_owned(),
        channel: false,
        init: serde_json::Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(runtime: &str, handler: &str) -> Manifest {
        let text = format!("schema = 1\nname = \"f\"\nruntime = \"{runtime}\"\nhandler = \"{handler}\"\n");
        Manifest::parse(&text).expect("it is valid")
    }

    fn env() -> BTreeMap<String, String> {
        [("TOKEN", "hush"), ("HOME", "/var/task")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    }

    #[test]
    fn python_gets_its_environment_by_the_init_frame() {
        let launch = launch(&manifest("python", "main.handle"), &env());
        assert_eq!(launch.argv, ["/usr/bin/python3", "-I", "-B", "/run/runlet/runner.py"]);
        assert!(launch.channel);
        assert_eq!(launch.env.get("HOME").map(String::as_str), Some("/tmp"));
        assert!(!launch.env.contains_key("TOKEN"));
        assert_eq!(
            launch.init,
            json!({
                "handler": "main.handle", "code": "/var/task", "env": {"HOME": "/var/task", "TOKEN": "hush"},
                "limits": {"memory": 134_217_728, "tmp": 16_777_216, "timeout_ms": 10_000},
            })
        );
    }

    #[test]
    fn exec_gets_it_as_its_own() {
        let launch = launch(&manifest("exec", "./bin/hello.sh"), &env());
        assert_eq!(launch.argv, ["/var/task/bin/hello.sh"]);
        assert!(!launch.channel && launch.init.is_null());
        assert_eq!(launch.env.get("TOKEN").map(String::as_str), Some("hush"));
        assert_eq!(launch.env.get("HOME").map(String::as_str), Some("/var/task"));
        assert_eq!(launch.env.get("LANG").map(String::as_str), Some("C.UTF-8"));
    }

    #[test]
    fn no_value_of_a_variable_is_ever_shown() {
        for runtime in ["python", "exec"] {
            let shown = format!("{:?}", launch(&manifest(runtime, "main.handle"), &env()));
            assert!(!shown.contains("hush"), "{shown}");
        }
    }
}
