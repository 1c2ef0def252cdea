//! The stand-in itself, against drivers of a few lines: what each exit code and each kind of silence means to the runner.
//!
//! The cases are those of GitLab Runner's own executors/custom/integration_test.go.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use super::driver::Failure;
use super::job::Job;
use super::runner::{Report, Runner, Verdict};
use super::settings;
use crate::wait::secs;

/// A runner whose driver is this shell script: `$1` is the call.
fn with_driver(directory: &tempfile::TempDir, script: &str) -> Runner {
    let path = directory.path().join("driver");
    std::fs::write(&path, format!("#!/bin/bash\n{script}\n")).expect("it is writable");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let call = |stage: &str| format!("{stage}_exec = {path:?}\n{stage}_args = [\"{stage}\"]\n");
    let calls: String = ["config", "prepare", "run", "cleanup"].map(call).concat();
    let builds = directory.path().join("builds");
    let text = format!(
        "[[runners]]\nexecutor = \"custom\"\nbuilds_dir = {builds:?}\ncache_dir = {builds:?}\n[runners.custom]\n{calls}graceful_kill_timeout = 1\nforce_kill_timeout = 1\n"
    );
    Runner {
        settings: settings::parse(&text),
        host_env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        user: None,
        retry_interval: Duration::from_millis(10),
        temp: directory.path().to_owned(),
    }
}

/// A job through a driver that runs the scripts on this machine, but for what `script` says first.
fn run(script: &str, job: Job) -> Report {
    let directory = tempfile::tempdir().expect("there is room");
    let plain = "case $1 in run) exec 3>&1; bash \"$2\" || { echo $? > $BUILD_EXIT_CODE_FILE; exit $BUILD_FAILURE_EXIT_CODE; };; esac";
    with_driver(&directory, &format!("{script}\n{plain}")).run(job)
}

#[test]
fn exit_codes_mean_what_they_mean_to_the_runner() {
    let job = || Job::new(1, &["echo the script", "exit 3"]);
    run("", Job::new(1, &["true"])).expect(Verdict::Success);
    run("", job()).expect(Verdict::Failed(3));
    let bare = "[ \"$1 $3\" != 'run build_script' ] || exit $BUILD_FAILURE_EXIT_CODE";
    run(bare, job()).expect(Verdict::Failed(77));
    let words =
        "[ \"$1 $3\" != 'run build_script' ] || { echo three > $BUILD_EXIT_CODE_FILE; exit $BUILD_FAILURE_EXIT_CODE; }";
    run(words, job()).expect(Verdict::System(Failure::Unknown(78)));
    run("[ \"$1 $3\" != 'run build_script' ] || exit $SYSTEM_FAILURE_EXIT_CODE", job())
        .expect(Verdict::System(Failure::System));
    run("[ \"$1 $3\" != 'run build_script' ] || exit 9", job()).expect(Verdict::System(Failure::Unknown(9)));
    // Cleanup may fail as it likes.
    run("[ $1 != cleanup ] || exit 9", Job::new(1, &["true"])).expect(Verdict::Success);
}

#[test]
fn preparation_is_tried_three_times_unless_it_is_the_jobs_fault() {
    let round = ["config", "prepare", "cleanup"];
    let report = run("[ $1 != prepare ] || exit $SYSTEM_FAILURE_EXIT_CODE", Job::new(1, &["true"]));
    assert_eq!((report.names(), &report.verdict), (round.repeat(3), &Verdict::System(Failure::System)));
    let report = run("[ $1 != prepare ] || exit $BUILD_FAILURE_EXIT_CODE", Job::new(1, &["true"]));
    assert_eq!((report.names(), &report.verdict), (round.to_vec(), &Verdict::Failed(77)));
    let report = run("[ $1 != config ] || echo '{'", Job::new(1, &["true"]));
    assert_eq!(report.names(), ["config", "cleanup"].repeat(3));
    assert!(matches!(report.verdict, Verdict::System(Failure::BadConfig(_))));
}

#[test]
fn a_driver_gets_what_the_runner_gives() {
    let look = r#"[ "$1 $3" != 'run build_script' ] || {
        echo "args $# $(basename $2) $(stat -c %a $2 $JOB_RESPONSE_FILE | xargs)"
        echo "place $([ $PWD = $TMPDIR ] && echo same) group $([ $(cut -d' ' -f5 /proc/$$/stat) = $$ ] && echo leader)"
        echo "job $CUSTOM_ENV_CI_JOB_ID $CUSTOM_ENV_MINE/$MINE $FROM_CONFIG stdin $(wc -c)"
    }
    [ $1 != config ] || echo '{"job_env": {"FROM_CONFIG": "given"}, "unknown": 1, "builds_dir_is_shared": true, "driver": {"name": "d"}}'"#;
    let report = run(look, Job::new(5, &["pwd"]).set("MINE", "x")).expect(Verdict::Success);
    for text in [
        "args 3 script 700 600\n",
        "place same group leader\n",
        "job 5 x/ given stdin 0\n",
        "/builds/runner/0/group/project-7\n",
    ] {
        assert!(report.trace.contains(text), "{text:?} is not in {}", report.trace);
    }
}

#[test]
fn the_ladder_is_terminate_kill_abandon() {
    let deaf =
        "[ \"$1 $3\" != 'run build_script' ] || { trap 'echo asked' TERM; echo begun; while :; do sleep 0.1; done; }";
    let start = Instant::now();
    let report = run(deaf, Job::new(1, &["true"]).timeout(secs(1))).expect(Verdict::TimedOut);
    assert!(start.elapsed() >= secs(2) && report.trace.contains("asked\n"), "{:?} {}", start.elapsed(), report.trace);
    assert_eq!(report.result("build_script"), &Err(Failure::Unknown(-1)));
    // A child in another group that holds the output open: the driver is dead, and the runner waits in vain.
    let held = "[ \"$1 $3\" != 'run build_script' ] || { setsid sleep 4 & echo begun; exit 0; }";
    let report = run(held, Job::new(1, &["true"]).timeout(secs(1))).expect(Verdict::TimedOut);
    assert_eq!(report.result("build_script"), &Err(Failure::Abandoned));
}
