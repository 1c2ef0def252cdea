//! The part of a runner's `config.toml` that the custom executor reads.

use std::time::Duration;

use serde::Deserialize;

/// common/config.go `Config`: only the list of runners concerns a job.
#[derive(Debug, Deserialize)]
struct File {
    runners: Vec<Settings>,
}

/// common/config.go `RunnerSettings`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Settings {
    pub(crate) executor: String,
    #[serde(default)]
    pub(crate) builds_dir: String,
    #[serde(default)]
    pub(crate) cache_dir: String,
    pub(crate) shell: Option<String>,
    /// `KEY=value` for every job.
    #[serde(default)]
    pub(crate) environment: Vec<String>,
    pub(crate) custom: Custom,
}

/// common/config.go `CustomConfig`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Custom {
    pub(crate) config_exec: String,
    pub(crate) config_args: Vec<String>,
    config_exec_timeout: Option<u64>,
    pub(crate) prepare_exec: String,
    pub(crate) prepare_args: Vec<String>,
    prepare_exec_timeout: Option<u64>,
    pub(crate) run_exec: String,
    pub(crate) run_args: Vec<String>,
    pub(crate) cleanup_exec: String,
    pub(crate) cleanup_args: Vec<String>,
    cleanup_exec_timeout: Option<u64>,
    graceful_kill_timeout: Option<u64>,
    force_kill_timeout: Option<u64>,
}

/// executors/custom/config.go `getDuration`: what is missing or not positive is the default.
fn seconds(source: Option<u64>, default: u64) -> Duration {
    Duration::from_secs(source.filter(|given| *given > 0).unwrap_or(default))
}

impl Custom {
    /// executors/custom/consts.go: an hour each.
    pub(crate) fn config_timeout(&self) -> Duration {
        seconds(self.config_exec_timeout, 3600)
    }

    pub(crate) fn prepare_timeout(&self) -> Duration {
        seconds(self.prepare_exec_timeout, 3600)
    }

    pub(crate) fn cleanup_timeout(&self) -> Duration {
        seconds(self.cleanup_exec_timeout, 3600)
    }

    /// helpers/process/killer.go `GracefulTimeout` and `KillTimeout`.
    pub(crate) fn graceful(&self) -> Duration {
        seconds(self.graceful_kill_timeout, 600)
    }

    pub(crate) fn force(&self) -> Duration {
        seconds(self.force_kill_timeout, 10)
    }
}

/// The first runner of a `config.toml`.
pub(crate) fn parse(text: &str) -> Settings {
    let file: File = toml::from_str(text).unwrap_or_else(|error| panic!("not a config.toml: {error}"));
    let runner = file.runners.into_iter().next().expect("it has a [[runners]]");
    assert_eq!(runner.executor, "custom");
    assert!(
        !runner.builds_dir.is_empty() && !runner.cache_dir.is_empty(),
        "docs/executors/custom.md: both are required"
    );
    assert!(!runner.custom.run_exec.is_empty(), "executors/custom/custom.go `prepareConfig`: run_exec is required");
    runner
}
