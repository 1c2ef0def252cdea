//! The CI door: jobs of GitLab Runner's custom executor, and `runlet exec` for people.
//!
//! `runner` and what it uses (`build`, `context`, `driver`, `job`, `script`, `settings`) stand in for GitLab Runner, rule by
//! rule after its source; the other modules are the tests, one per promise.

mod build;
mod context;
mod driver;
mod job;
mod runner;
mod script;
mod settings;

mod books;
mod cache;
mod cancel;
mod crowd;
mod exec;
mod guide;
mod hostile;
mod jobs;
mod lost;
mod network;
mod refusals;
mod roles;
mod same;
mod stand_in;

use std::ffi::OsString;

use serde_json::Value;

use crate::host::{Builder, TestHost};
use crate::wait::secs;
use runner::Runner;

/// A server with these lines in `[ci]` and `[ci.gitlab]`.
fn with_ci(ci: &str, gitlab: &str) -> Builder {
    TestHost::builder().table(&format!("[ci]\n{ci}\n[ci.gitlab]\n{gitlab}\n"))
}

/// A `config.toml` that calls the program under test, as short as it may be.
fn config_toml() -> String {
    let program = env!("CARGO_BIN_EXE_runlet");
    let call =
        |stage: &str| format!("{stage}_exec = \"{program}\"\n{stage}_args = [\"ci\", \"gitlab\", \"{stage}\"]\n");
    format!(
        "[[runners]]\nexecutor = \"custom\"\nbuilds_dir = \"/elsewhere\"\ncache_dir = \"/elsewhere\"\n[runners.custom]\n{}{}{}{}",
        call("config"),
        call("prepare"),
        call("run"),
        call("cleanup")
    )
}

/// A runner whose driver talks to this server over its unix socket, as root.
fn runner_for(host: &TestHost) -> Runner {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let host_env: Vec<(OsString, OsString)> =
        vec![("PATH".into(), path), ("RUNLET_DATA_DIR".into(), host.data_dir().into_os_string())];
    Runner {
        settings: settings::parse(&config_toml()),
        host_env,
        user: None,
        retry_interval: secs(3),
        temp: host.scratch(),
    }
}

impl TestHost {
    /// The one invocation of the job with this id.
    #[track_caller]
    fn job(&self, id: u64) -> Value {
        let mut ids: Vec<String> = Vec::new();
        let first = "/v1/executions?cause=ci&limit=100";
        let mut path = first.to_owned();
        loop {
            let page = self.get(&path);
            for execution in page["executions"].as_array().expect("a list") {
                ids.push(execution["invocation"].as_str().expect("an id").to_owned());
            }
            let Some(next) = page["next"].as_str() else { break };
            path = format!("{first}&before={next}");
        }
        ids.sort_unstable();
        ids.dedup();
        let mut mine: Vec<Value> = ids.iter().map(|id| self.invocation(id)).collect();
        let name = id.to_string();
        mine.retain(|invocation| invocation["cause"]["job"]["id"] == name.as_str());
        assert_eq!(mine.len(), 1, "one invocation per job, job {id}: {ids:?}");
        mine.remove(0)
    }

    /// The executions of an invocation, first to last.
    #[track_caller]
    fn steps(&self, invocation: &Value) -> Vec<Value> {
        let ids = invocation["executions"].as_array().expect("a list").clone();
        ids.iter().map(|id| self.execution(id.as_str().expect("an id"))).collect()
    }

    /// The execution of one step of a job.
    #[track_caller]
    fn step(&self, job: u64, step: &str) -> Value {
        let invocation = self.job(job);
        let found = self.steps(&invocation).into_iter().rfind(|one| one["step"] == step);
        found.unwrap_or_else(|| panic!("job {job} has no step {step}: {invocation}"))
    }
}
