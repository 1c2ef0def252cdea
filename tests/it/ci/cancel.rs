//! Jobs that are ended before their time: by GitLab, by their timeouts, by an operator.

use super::job::Job;
use super::runner::Verdict;
use super::{runner_for, with_ci};
use crate::host::TestHost;
use crate::wait::{secs, until};

/// Says how many processes of the sandbox have this text in their command line.
fn count(text: &str) -> String {
    format!("echo \"left=$(cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o '{text}' | wc -l)\"")
}

#[test]
fn a_cancelled_script_ends_and_after_script_runs() {
    let host = TestHost::start();
    let after = count("sleep 98[7]");
    let job = Job::new(61, &["trap 'echo asked to stop' TERM", "sleep 987 & echo begun; wait; echo never"])
        .after(&["echo after $CI_JOB_STATUS", &after]);
    let running = runner_for(&host).start(job);
    running.saw("begun\n");
    running.cancel();
    let report = running.finish().expect(Verdict::Cancelled);
    let trace = &report.trace;
    assert!(trace.contains("after canceled\n") && trace.contains("left=0\n"), "{trace}");
    assert!(report.names().ends_with(&["build_script", "after_script", "cleanup_file_variables", "cleanup"]));
    let step = host.step(61, "build_script");
    assert_eq!((step["state"].as_str(), step["outcome"]["kind"].as_str()), (Some("cancelled"), Some("cancelled")));
    assert_eq!(host.step(61, "after_script")["state"], "succeeded");
    assert_eq!(host.job(61)["state"], "cancelled");
    host.finish();
}

#[test]
fn who_ignores_every_signal_is_killed_after_the_grace() {
    let host = with_ci("kill_grace = \"500ms\"", "").start();
    // The whole family is deaf: a shell that ignores SIGTERM, and a child in a session of its own.
    let deaf = "trap '' TERM INT HUP; setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 0.1; done # deaf child' & echo begun; while :; do sleep 0.1; done";
    let left = count("deaf chil[d]");
    let job = Job::new(62, &[&format!("bash -c {}", super::script::quote(deaf))]).after(&["echo after", &left]);
    let running = runner_for(&host).start(job);
    running.saw("begun\n");
    let start = std::time::Instant::now();
    running.cancel();
    let report = running.finish().expect(Verdict::Cancelled);
    assert!(start.elapsed() < secs(10), "{:?}", start.elapsed());
    assert!(report.trace.contains("after\n") && report.trace.contains("left=0\n"), "{}", report.trace);
    host.traces.wait_no_sandbox(secs(5));
    host.finish();
}

#[test]
fn timeouts_of_script_and_job_end_what_runs() {
    let host = TestHost::start();
    let runner = runner_for(&host);
    let job = Job::new(63, &["echo begun; sleep 988"]).set("RUNNER_SCRIPT_TIMEOUT", "2s").after(&["echo after"]);
    let report = runner.run(job).expect(Verdict::TimedOut);
    assert!(report.trace.contains("after\n"), "{}", report.trace);
    // The job's own timeout ends everything: no after_script, only cleanup.
    let job = Job::new(64, &["echo begun; sleep 989"]).timeout(secs(5)).after(&["echo after"]);
    let report = runner.run(job).expect(Verdict::TimedOut);
    assert!(report.names().ends_with(&["build_script", "cleanup"]), "{:?}", report.names());
    host.traces.wait_no_sandbox(secs(5));
    assert!(["cancelled", "failed"].iter().any(|state| host.job(64)["state"] == *state), "{}", host.job(64));
    host.finish();
}

#[test]
fn a_cancel_while_sources_are_fetched_ends_the_job() {
    let host = TestHost::start();
    let running = runner_for(&host).start_until(Job::new(65, &["echo never"]).after(&["echo never"]), "get_sources");
    running.arrives();
    running.cancel();
    running.go_on();
    let report = running.finish().expect(Verdict::Cancelled);
    assert!(!report.names().contains(&"build_script") && !report.trace.contains("never\n"), "{}", report.trace);
    host.traces.wait_no_sandbox(secs(5));
    host.finish();
}

#[test]
fn a_cancel_while_the_job_waits_for_room_leaves_nothing() {
    let host = with_ci("", "memory = \"128MiB\"").set("memory", "\"128MiB\"").start();
    let runner = runner_for(&host);
    let first = runner.start(Job::new(66, &["echo begun; while [ ! -e /builds/go ]; do sleep 0.05; done"]));
    first.saw("begun\n");
    let second = runner.start(Job::new(67, &["echo never"]));
    second.saw("waiting for room");
    second.cancel();
    second.finish().expect(Verdict::Cancelled);
    let waiting = || host.get("/v1/capacity")["capacity"]["waiting"] == 0;
    until("nobody waits for room", secs(10), waiting);
    first.cancel();
    first.finish().expect(Verdict::Cancelled);
    host.traces.wait_no_sandbox(secs(5));
    assert_eq!(host.get("/v1/leases")["leases"], serde_json::json!([]));
    // The room is there again.
    runner.run(Job::new(68, &["true"])).expect(Verdict::Success);
    host.finish();
}

#[test]
fn an_operator_cancels_a_job_by_cli_and_by_api() {
    let host = TestHost::start();
    let runner = runner_for(&host);
    let job = |id| Job::new(id, &["echo begun; sleep 990; echo never"]).after(&["echo never"]);
    let running = runner.start(job(69));
    running.saw("begun\n");
    let id = host.job(69)["id"].as_str().expect("an id").to_owned();
    let output = host.cli(&["cancel", &id]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = running.finish();
    assert!(!matches!(report.verdict, Verdict::Success), "{}", report.trace);
    assert!(!report.trace.contains("never\n"), "{}", report.trace);
    assert!(report.trace.contains("runlet: ") && report.trace.contains("cancel"), "{}", report.trace);
    assert_eq!(host.job(69)["state"], "cancelled");
    assert_eq!(host.step(69, "build_script")["outcome"]["kind"], "cancelled");
    host.traces.wait_no_sandbox(secs(5));
    let running = runner.start(job(70));
    running.saw("begun\n");
    let id = host.job(70)["id"].as_str().expect("an id").to_owned();
    host.http("POST", &format!("/v1/invocations/{id}/cancel")).send().expect(200);
    running.finish();
    assert_eq!(host.job(70)["state"], "cancelled");
    host.finish();
}
