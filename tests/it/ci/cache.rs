//! What stays between the jobs of a project, and what does not.

use super::job::Job;
use super::runner::Verdict;
use super::runner_for;
use crate::host::TestHost;

#[test]
fn the_cache_is_for_the_project_and_the_build_for_the_job() {
    let host = TestHost::start();
    let runner = runner_for(&host);
    let job = |id: u64, project: u64, script: &str| Job::new(id, &[script]).project(project).cache("deps");
    let first = "[ ! -e deps ] && mkdir -p deps/sub && echo first > deps/sub/file && ln -s file deps/sub/link && chmod 750 deps/sub; \
                 mkdir -p /cache/own && echo own > /cache/own/file; echo mine > /builds/only-here";
    let report = runner.run(job(401, 1, first)).expect(Verdict::Success);
    assert!(report.trace.contains("No cache yet\n"), "{}", report.trace);
    // The next job of the project, in another sandbox with other ids, reads and changes it.
    let second = "cat deps/sub/link && echo second >> deps/sub/file; cat /cache/own/file && echo more >> /cache/own/file; \
                  echo \"builds: $(ls /builds)\"; stat -c '%u %a' deps/sub";
    let report = runner.run(job(402, 1, second)).expect(Verdict::Success);
    assert!(report.trace.contains("first\nown\nbuilds: group\n0 750\n"), "{}", report.trace);
    // Another project has nothing of it.
    let other = "echo \"theirs: $(ls -A /cache)\"; mkdir deps";
    let report = runner.run(job(403, 2, other)).expect(Verdict::Success);
    assert!(report.trace.contains("No cache yet\n") && report.trace.contains("theirs: \n"), "{}", report.trace);
    // A restart of the server changes nothing.
    let report = {
        let mut host = host;
        assert!(host.stop().success());
        host.restart();
        let report = runner.run(job(404, 1, "cat deps/sub/file /cache/own/file")).expect(Verdict::Success);
        host.finish();
        report
    };
    assert!(report.trace.contains("first\nsecond\nown\nmore\n"), "{}", report.trace);
}

#[test]
fn jobs_of_one_project_at_the_same_time_both_write_their_cache() {
    let host = TestHost::start();
    let runner = runner_for(&host);
    let script = "mkdir -p deps; for i in $(seq 200); do echo $CI_JOB_ID > deps/$i; echo $CI_JOB_ID > /cache/$i.$CI_JOB_ID; done";
    let running: Vec<_> = (0..4).map(|n| runner.start(Job::new(411 + n, &[script]).project(3).cache("deps"))).collect();
    for job in running {
        job.finish().expect(Verdict::Success);
    }
    // The last archive won as a whole, and what each wrote under its own name is there.
    let look = "sort -u deps/* | wc -l; ls deps | wc -l; ls /cache | grep -c '^[0-9]*[.]41'";
    let report = runner.run(Job::new(420, &[look]).project(3).cache("deps")).expect(Verdict::Success);
    assert!(report.trace.contains("\n1\n200\n800\n"), "{}", report.trace);
    host.finish();
}

#[test]
fn other_namespaces_have_caches_of_their_own() {
    let host = TestHost::start();
    let runner = runner_for(&host);
    runner.run(Job::new(431, &["echo here > /cache/file"])).expect(Verdict::Success);
    let mut team = runner.clone();
    team.host_env.push(("RUNLET_TOKEN".into(), super::roles::token(&host, "team", "ci").into()));
    let report = team.run(Job::new(432, &["echo \"theirs: $(ls -A /cache)\""])).expect(Verdict::Success);
    assert!(report.trace.contains("theirs: \n"), "{}", report.trace);
    host.finish();
}
