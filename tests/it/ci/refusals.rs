//! Calls that cannot work: each is told what is wrong, with the system-failure code, and changes nothing.

use std::process::{Command, Output};

use super::job::Job;
use super::runner::Verdict;
use super::runner_for;
use crate::host::{TestHost, runlet};

/// The driver as the runner calls it, but by hand: for this job, with what `args` say after `ci gitlab`.
pub(super) fn driver(host: &TestHost, job: u64, args: &[&str]) -> Output {
    let response = host.scratch().join("response.json");
    std::fs::write(&response, Job::new(job, &["true"]).response().to_string()).expect("it is writable");
    let mut command = plain(args);
    command.env("RUNLET_DATA_DIR", host.data_dir()).env("JOB_RESPONSE_FILE", &response);
    command.env("BUILD_FAILURE_EXIT_CODE", "77").env("SYSTEM_FAILURE_EXIT_CODE", "78");
    command.output().expect("it is built")
}

/// The driver with nothing of the runner's in its environment.
fn plain(args: &[&str]) -> Command {
    let mut command = runlet();
    command.args(["ci", "gitlab"]).args(args).stdin(std::process::Stdio::null());
    for name in ["BUILD_FAILURE_EXIT_CODE", "SYSTEM_FAILURE_EXIT_CODE", "BUILD_EXIT_CODE_FILE", "JOB_RESPONSE_FILE"] {
        command.env_remove(name);
    }
    command
}

/// Exit code and last line on stderr, which must be one of ours.
#[track_caller]
fn refused(output: &Output) -> (i32, String) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().rfind(|line| line.starts_with("runlet: "));
    (output.status.code().expect("it exits"), line.unwrap_or_else(|| panic!("no line of ours: {text}")).to_owned())
}

#[test]
fn a_bad_environment_is_named() {
    let host = TestHost::start();
    let script = host.scratch().join("script");
    std::fs::write(&script, "#!/bin/bash\necho never\n").expect("it is writable");
    let script = script.to_str().expect("ASCII");
    // Called by hand: nothing of a runner is there.
    for args in [&["prepare"][..], &["run", script, "build_script"], &["cleanup"]] {
        let (code, line) = refused(&plain(args).env("RUNLET_DATA_DIR", host.data_dir()).output().expect("it is built"));
        assert_eq!(code, 2, "{args:?}: {line}");
        assert!(line.contains("FAILURE_EXIT_CODE") || line.contains("GitLab Runner"), "{args:?}: {line}");
    }
    // Exit codes that are no numbers, or mean success.
    for bad in ["", "x", "0", "-1", "300"] {
        let mut command = plain(&["run", script, "build_script"]);
        command.env("RUNLET_DATA_DIR", host.data_dir()).env("CUSTOM_ENV_CI_JOB_ID", "5");
        command.env("BUILD_FAILURE_EXIT_CODE", bad).env("SYSTEM_FAILURE_EXIT_CODE", "78");
        let (code, line) = refused(&command.output().expect("it is built"));
        assert_eq!(code, 78, "{bad:?}: {line}");
        assert!(line.contains("BUILD_FAILURE_EXIT_CODE"), "{bad:?}: {line}");
    }
    // No job: neither in the response nor in the variables.
    for response in ["/nowhere/response.json", "/dev/null"] {
        let mut command = plain(&["run", script, "build_script"]);
        command.env("RUNLET_DATA_DIR", host.data_dir()).env("JOB_RESPONSE_FILE", response);
        command.env("BUILD_FAILURE_EXIT_CODE", "77").env("SYSTEM_FAILURE_EXIT_CODE", "78");
        let (code, line) = refused(&command.output().expect("it is built"));
        assert_eq!(code, 78, "{response}: {line}");
    }
    // No lease: the job was never prepared, or is over.
    let (code, line) = refused(&driver(&host, 121, &["run", script, "build_script"]));
    assert_eq!(code, 78, "{line}");
    assert!(line.contains("gone") || line.contains("no lease") || line.contains("prepare"), "{line}");
    // No script.
    let output = driver(&host, 121, &["prepare"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (code, line) = refused(&driver(&host, 121, &["run", "/nowhere/script", "build_script"]));
    assert_eq!(code, 78, "{line}");
    assert!(line.contains("/nowhere/script"), "{line}");
    assert!(driver(&host, 121, &["cleanup"]).status.success());
    // Twice is no mistake: the runner cleans up after a failed prepare too.
    assert!(driver(&host, 121, &["cleanup"]).status.success());
    host.finish();
}

#[test]
fn older_runners_without_a_job_response_are_served() {
    let host = TestHost::start();
    let script = host.scratch().join("script");
    std::fs::write(&script, "#!/bin/bash\necho it runs\n").expect("it is writable");
    let call = |args: &[&str]| {
        let mut command = plain(args);
        command.env("RUNLET_DATA_DIR", host.data_dir()).env("CUSTOM_ENV_CI_JOB_ID", "131");
        command.env("CUSTOM_ENV_CI_PROJECT_ID", "9").env("CUSTOM_ENV_CI_SERVER_HOST", "gitlab.example");
        command.env("BUILD_FAILURE_EXIT_CODE", "1").env("SYSTEM_FAILURE_EXIT_CODE", "2");
        let output = command.output().expect("it is built");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let config: serde_json::Value = serde_json::from_str(&call(&["config"])).expect("config prints JSON");
    assert_eq!((config["builds_dir"].as_str(), config["driver"]["name"].as_str()), (Some("/builds"), Some("runlet")));
    call(&["prepare"]);
    assert_eq!(call(&["run", script.to_str().expect("ASCII"), "build_script"]), "it runs\n");
    call(&["cleanup"]);
    assert_eq!(host.job(131)["cause"]["job"]["project_id"], "9");
    host.finish();
}

#[test]
fn prepare_again_begins_anew() {
    let host = TestHost::start();
    assert!(driver(&host, 141, &["prepare"]).status.success());
    let first = host.get("/v1/leases")["leases"].clone();
    assert!(driver(&host, 141, &["prepare"]).status.success());
    let second = host.get("/v1/leases")["leases"].clone();
    assert_eq!((first.as_array().map(Vec::len), second.as_array().map(Vec::len)), (Some(1), Some(1)), "{second}");
    assert_ne!(first[0]["id"], second[0]["id"]);
    assert!(driver(&host, 141, &["cleanup"]).status.success());
    runner_for(&host).run(Job::new(142, &["true"])).expect(Verdict::Success);
    host.finish();
}
