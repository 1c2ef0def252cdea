//! What dies in the middle: the driver's process, the runner, the server.

use nix::sys::signal::Signal;

use super::driver::Failure;
use super::job::Job;
use super::runner::{Runner, Verdict, kill_process};
use super::{runner_for, with_ci};
use crate::host::TestHost;
use crate::wait::{secs, until};

#[test]
fn a_killed_client_ends_its_stage_and_no_other() {
    let host = TestHost::start();
    let after = "echo \"left=$(cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o 'sleep 99[1]' | wc -l)\"";
    let running = runner_for(&host).start(Job::new(71, &["echo begun; sleep 991"]).after(&[after]));
    running.saw("begun\n");
    kill_process(running.process("build_script"));
    let report = running.finish().expect(Verdict::System(Failure::Unknown(-1)));
    // The runner lives and goes on in the same sandbox: the stage is gone from it.
    assert!(report.trace.contains("left=0\n"), "{}", report.trace);
    assert_eq!(host.step(71, "build_script")["outcome"]["kind"], "cancelled");
    host.traces.wait_no_sandbox(secs(5));
    host.finish();
}

#[test]
fn a_killed_runner_lets_go_of_its_sandbox_by_deadline() {
    let host = with_ci("idle = \"3s\"", "").start();
    let running = runner_for(&host).start(Job::new(72, &["echo begun; sleep 992"]));
    running.saw("begun\n");
    running.kill_runner();
    host.traces.wait_no_sandbox(secs(20));
    until("the job is over on record", secs(10), || crate::calls::is_terminal(&host.job(72)));
    assert_eq!(host.get("/v1/leases")["leases"], serde_json::json!([]));
    // One that dies between two stages leaves nothing either.
    let running = runner_for(&host).start_until(Job::new(73, &["true"]), "build_script");
    running.arrives();
    running.kill_runner();
    host.traces.wait_no_sandbox(secs(20));
    host.finish();
}

#[test]
fn a_lease_lives_while_a_stage_runs_however_long_it_is_idle_for() {
    let host = with_ci("idle = \"3s\"", "").start();
    // Longer than the idle time, in silence.
    runner_for(&host).run(Job::new(74, &["sleep 5"])).expect(Verdict::Success);
    host.finish();
}

/// A job whose server is killed while its script runs.
fn kill_amid(host: &mut TestHost, runner: &Runner, id: u64) {
    let running = runner.start(Job::new(id, &["echo begun; sleep 993"]).after(&["echo never"]));
    running.saw("begun\n");
    host.kill9();
    let report = running.finish().expect(Verdict::System(Failure::System));
    assert!(report.trace.contains("runlet: "), "{}", report.trace);
    assert!(!report.trace.contains("never\n"), "{}", report.trace);
    // Nothing of the job outlives its server by more than its grace.
    host.traces.wait_no_sandbox(secs(10));
}

#[test]
fn a_killed_server_is_a_system_failure_that_says_so() {
    let mut host = TestHost::start();
    let runner = runner_for(&host);
    kill_amid(&mut host, &runner, 75);
    // No server: the driver says where it looked; the runner tries three times.
    let quick = Runner { retry_interval: std::time::Duration::from_millis(100), ..runner.clone() };
    let report = quick.run(Job::new(76, &["true"])).expect(Verdict::System(Failure::System));
    assert_eq!(report.names().iter().filter(|name| **name == "prepare").count(), 3);
    assert!(report.trace.contains("runlet.sock") && report.trace.contains("runlet: "), "{}", report.trace);
    host.restart();
    // What was lost is on record as lost, and the next job is as any other.
    assert_eq!(host.step(75, "build_script")["state"], "lost");
    assert!(crate::calls::is_terminal(&host.job(75)), "{}", host.job(75));
    runner.run(Job::new(77, &["true"])).expect(Verdict::Success);
    host.finish();
}

#[test]
fn a_server_that_was_restarted_between_stages_has_no_such_job() {
    let mut host = TestHost::start();
    let runner = runner_for(&host);
    let running = runner.start_until(Job::new(78, &["echo never"]).after(&["echo never"]), "build_script");
    running.arrives();
    host.kill9();
    host.restart();
    running.go_on();
    let report = running.finish().expect(Verdict::System(Failure::System));
    let line = report.trace.lines().find(|line| line.starts_with("runlet: ") && line.contains("gone"));
    assert!(line.is_some(), "{}", report.trace);
    assert!(!report.trace.contains("never\n"), "{}", report.trace);
    assert!(crate::calls::is_terminal(&host.job(78)), "{}", host.job(78));
    // A polite stop in between is no different for the job, and leaves as little.
    let running = runner.start_until(Job::new(79, &["echo never"]), "build_script");
    running.arrives();
    host.stop();
    host.traces.wait_no_sandbox(secs(5));
    host.restart();
    running.go_on();
    running.finish().expect(Verdict::System(Failure::System));
    host.finish();
}

#[test]
fn a_soft_stop_lets_the_stage_under_way_end() {
    let mut host = TestHost::builder().set("stop_grace", "\"30s\"").start();
    let script = "echo begun; while [ ! -e /builds/go ]; do sleep 0.05; done; echo finished";
    let running = runner_for(&host).start(Job::new(80, &[script]));
    running.saw("begun\n");
    let lease = host.get("/v1/leases")["leases"][0]["id"].as_str().expect("an id").to_owned();
    let mut later = host
        .cli_command(&["exec", &lease, "--", "sh", "-c", "sleep 1; touch /builds/go"])
        .spawn()
        .expect("it is built");
    until("the second process runs in the sandbox", secs(10), || {
        host.get("/v1/leases")["leases"][0]["running"].as_u64() == Some(2)
    });
    host.traces.note_family(host.pid());
    host.signal(Signal::SIGTERM);
    assert!(later.wait().expect("it is our child").success());
    running.saw("finished\n");
    let report = running.finish();
    assert!(report.result("build_script").is_ok(), "{}", report.trace);
    assert!(host.wait_end().success());
    host.finish();
}
