//! What has to be started in a sandbox so that a function can be called.
//!
//! It knows the paths inside the sandbox and the runtimes; it does not know how a process gets there.

use std::collections::BTreeMap;
use std::fmt;

use runlet_core::manifest::{Manifest, RuntimeKind};
use runlet_core::unit::ByteSize;
use serde_json::json;

/// Where the code of the revision is in the sandbox.
pub const CODE_DIR: &str = "/var/task";

/// Where the files of [`runner_files`] are in the sandbox.
pub const RUNNER_DIR: &str = "/run/runlet";

/// Python's runner, and the parts of it that are read when they are needed.
const PYTHON: &[(&str, &[u8])] = &[
    ("runner.py", include_bytes!("../python/runner.py")),
    ("problem.py", include_bytes!("../python/problem.py")),
    ("pieces.py", include_bytes!("../python/pieces.py")),
    ("forked.py", include_bytes!("../python/forked.py")),
    ("shared.py", include_bytes!("../python/shared.py")),
];

/// Node's runner and its parts.
const NODE: &[(&str, &[u8])] = &[
    ("runner.js", include_bytes!("../node/runner.js")),
    ("channel.js", include_bytes!("../node/channel.js")),
    ("load.js", include_bytes!("../node/load.js")),
    ("problem.js", include_bytes!("../node/problem.js")),
];

/// The files that a runtime needs in [`RUNNER_DIR`], by name.
#[must_use]
pub fn runner_files(kind: RuntimeKind) -> &'static [(&'static str, &'static [u8])] {
    match kind {
        RuntimeKind::Python => PYTHON,
        RuntimeKind::Node => NODE,
        RuntimeKind::Exec | RuntimeKind::Custom => &[],
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
    let (argv, whole) = match manifest.runtime {
        // The function's own environment goes by the init frame, not by the process: an interpreter that is started ahead
        // of time gets it later in the same way.
        RuntimeKind::Python => (python_argv(), base_env()),
        RuntimeKind::Node => (node_argv(manifest.limits.memory), base_env()),
        RuntimeKind::Exec | RuntimeKind::Custom => {
            let mut whole = base_env();
            whole.extend(env.iter().map(|(name, value)| (name.clone(), value.clone())));
            (vec![format!("{CODE_DIR}/{}", manifest.handler.trim_start_matches("./"))], whole)
        }
    };
    let channel = manifest.runtime.stays();
    let init = if channel { init(manifest, env) } else { serde_json::Value::Null };
    Launch { argv, env: whole, cwd: CODE_DIR.to_owned(), channel, init }
}

/// The runner to start ahead, before it is known what it serves; `None` for runtimes that have no runner of ours. What it is
/// told later is the init of [`launch`].
#[must_use]
pub fn ahead(kind: RuntimeKind, memory: ByteSize) -> Option<Launch> {
    let argv = match kind {
        RuntimeKind::Python => python_argv(),
        RuntimeKind::Node => node_argv(memory),
        RuntimeKind::Exec | RuntimeKind::Custom => return None,
    };
    // The code is not there yet: runners go to it when they are told where it is.
    Some(Launch { argv, env: base_env(), cwd: "/".to_owned(), channel: true, init: serde_json::Value::Null })
}

fn python_argv() -> Vec<String> {
    ["/usr/bin/python3", "-I", "-B", "/run/runlet/runner.py"].map(str::to_owned).into()
}

/// The environment that every program in a sandbox has.
fn base_env() -> BTreeMap<String, String> {
    let pairs = [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", "/tmp"), ("LANG", "C.UTF-8")];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Left alone, node lets garbage grow as if all of the host's memory were its own, and is killed for that. The heap may
/// have all of the sandbox's memory: whoever fills it meets the sandbox's limit first, and that is told as what it is.
fn node_argv(memory: ByteSize) -> Vec<String> {
    let mib = memory.0 >> 20;
    let young = (mib / 64).clamp(1, 16);
    vec![
        "node".to_owned(),
        format!("--max-old-space-size={mib}"),
        format!("--max-semi-space-size={young}"),
        format!("{RUNNER_DIR}/runner.js"),
    ]
}

/// What a runner is told first.
fn init(manifest: &Manifest, env: &BTreeMap<String, String>) -> serde_json::Value {
    let limits = &manifest.limits;
    let timeout_ms = u64::try_from(limits.timeout.0.as_millis()).unwrap_or(u64::MAX);
    json!({
        "handler": manifest.handler,
        "code": CODE_DIR,
        "env": env,
        "limits": { "memory": limits.memory.0, "tmp": limits.tmp.0, "timeout_ms": timeout_ms },
        "concurrency": manifest.concurrency,
        "reset": manifest.reset,
    })
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
                "concurrency": 1,
                "reset": "warm",
            })
        );
    }

    #[test]
    fn node_is_told_how_much_memory_there_is() {
        let launch = launch(&manifest("node", "main.handler"), &env());
        let argv = ["node", "--max-old-space-size=128", "--max-semi-space-size=2", "/run/runlet/runner.js"];
        assert_eq!(launch.argv, argv);
        assert!(launch.channel && !launch.env.contains_key("TOKEN"));
        assert_eq!(launch.init["env"]["TOKEN"], "hush");
    }

    #[test]
    fn custom_gets_it_both_ways() {
        let launch = launch(&manifest("custom", "bin/runner"), &env());
        assert_eq!(launch.argv, ["/var/task/bin/runner"]);
        assert!(launch.channel);
        assert_eq!(launch.env.get("TOKEN").map(String::as_str), Some("hush"));
        assert_eq!(launch.init["env"]["TOKEN"], "hush");
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
        for runtime in ["python", "node", "exec", "custom"] {
            let shown = format!("{:?}", launch(&manifest(runtime, "main.handle"), &env()));
            assert!(!shown.contains("hush"), "{shown}");
        }
    }
}
