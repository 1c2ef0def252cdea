//! More jobs than the host has room for.

use super::job::Job;
use super::runner::{Running, Verdict};
use super::{runner_for, with_ci};
use crate::wait::secs;
use crate::wait::until_some;

const JOBS: u64 = 20;

#[test]
fn twenty_jobs_share_memory_for_four() {
    let host = with_ci("", "memory = \"128MiB\"").set("memory", "\"512MiB\"").start();
    let runner = runner_for(&host);
    let script = ["echo begun", "head -c 20000000 /dev/zero | sha256sum", "sleep 0.2", "echo \"done $CI_JOB_ID\""];
    let running: Vec<Running> =
        (0..JOBS).map(|n| runner.start(Job::new(1000 + n, &script).project(n % 3).timeout(secs(600)))).collect();
    let (mut most, mut waited) = (0, 0);
    until_some("all jobs are over", secs(400), || {
        let capacity = host.get("/v1/capacity")["capacity"].clone();
        let number = |key: &str| capacity[key].as_u64().expect("a number");
        assert!(number("memory_used") <= 512 << 20 && number("sandboxes") <= 4, "oversubscribed: {capacity}");
        most = most.max(number("sandboxes"));
        waited = waited.max(number("waiting"));
        running.iter().all(Running::is_over).then_some(())
    });
    assert!(most == 4 && waited >= 10, "{most} at once, {waited} waited");
    let mut told = 0;
    for (n, job) in (0..JOBS).zip(running) {
        let report = job.finish().expect(Verdict::Success);
        assert!(report.trace.contains(&format!("done {}\n", 1000 + n)), "{}", report.trace);
        told += usize::from(report.trace.contains("waiting for room"));
    }
    assert!(told >= 10, "only {told} jobs were told why they wait");
    for n in 0..JOBS {
        assert_eq!(host.job(1000 + n)["state"], "succeeded");
    }
    host.traces.wait_no_sandbox(secs(5));
    host.finish();
}

#[test]
fn who_finds_no_room_in_time_is_a_system_failure() {
    let host = with_ci("wait = \"1s\"", "memory = \"128MiB\"").set("memory", "\"128MiB\"").start();
    let mut runner = runner_for(&host);
    runner.retry_interval = std::time::Duration::from_millis(100);
    let first = runner.start(Job::new(81, &["echo begun; sleep 994"]));
    first.saw("begun\n");
    let report = runner.run(Job::new(82, &["true"]));
    assert_eq!(report.verdict, Verdict::System(super::driver::Failure::System), "{}", report.trace);
    assert_eq!(report.names(), ["config", "prepare", "cleanup"].repeat(3));
    assert!(report.trace.contains("runlet: ") && report.trace.contains("room"), "{}", report.trace);
    // Limits that no host can hold are said at once.
    let report = runner.run(Job::new(83, &["true"]).set("RUNLET_CI_MEMORY", "1GiB"));
    assert!(matches!(report.verdict, Verdict::System(_) | Verdict::Failed(_)), "{:?}", report.verdict);
    assert!(report.trace.contains("1GiB"), "{}", report.trace);
    first.cancel();
    first.finish().expect(Verdict::Cancelled);
    host.finish();
}
