//! Jobs that run: stages in their order, one place for all of them, output byte by byte, exit codes.

use super::job::Job;
use super::runner::Verdict;
use super::{runner_for, with_ci};
use crate::host::TestHost;
use crate::wait::secs;

/// Says how many children it could have at a time.
const FORKS: &str = "python3 - <<'EOT'
import os, signal
pids = []
while len(pids) < 200:
    try:
        pid = os.fork()
    except OSError:
        break
    if pid == 0:
        signal.pause()
    pids.append(pid)
print(f\"forks={len(pids)}\", flush=True)
for pid in pids:
    os.kill(pid, 9)
EOT";

#[test]
fn a_job_goes_through_its_stages_in_one_sandbox() {
    let host = TestHost::start();
    let job =
        Job::new(11, &["echo from the script", "pwd", "echo kept > ../kept; echo $HOME > ../home; date > /tmp/moment"])
            .step("release", &["cat ../kept /tmp/moment > /dev/null && echo still there"])
            .after(&["echo after $CI_JOB_STATUS; cat ../kept"])
            .cache("some.txt")
            .set("RESTORE_CACHE_ATTEMPTS", "3");
    let report = runner_for(&host).run(job.clone()).expect(Verdict::Failed(2));
    // `tar` failed in archive_cache: there is no some.txt. The rest has run all the same, in the runner's order.
    let stages = ["prepare_script", "get_sources", "restore_cache", "build_script", "step_release", "after_script"];
    let names: Vec<&str> = ["config", "prepare"]
        .into_iter()
        .chain(stages)
        .chain(["archive_cache", "cleanup_file_variables", "cleanup"])
        .collect();
    assert_eq!(report.names(), names);
    let trace = &report.trace;
    assert!(trace.contains("Using Custom executor with driver runlet"), "{trace}");
    for text in ["from the script\n", "/builds/group/project-7\n", "still there\n", "after success\nkept\n"] {
        assert!(trace.contains(text), "{text:?} is not in {trace}");
    }
    host.traces.wait_no_sandbox(secs(5));
    let again = Job { cache: Vec::new(), id: 12, ..job };
    runner_for(&host).run(again).expect(Verdict::Success);
    host.finish();
}

#[test]
fn exit_codes_go_through_the_runners_file() {
    let host = TestHost::start();
    let runner = runner_for(&host);
    let job = Job::new(21, &["echo about to fail", "exit 42", "echo never"]).after(&["echo after $CI_JOB_STATUS"]);
    let report = runner.run(job).expect(Verdict::Failed(42));
    assert!(report.trace.contains("about to fail\n") && !report.trace.contains("never\n"), "{}", report.trace);
    assert!(report.trace.contains("after failed\n"), "{}", report.trace);
    let step = host.step(21, "build_script");
    assert_eq!((step["state"].as_str(), step["outcome"]["kind"].as_str()), (Some("failed"), Some("exit")), "{step}");
    assert_eq!(step["outcome"]["exit_code"], 42, "{step}");
    assert_eq!(host.job(21)["state"], "failed");
    // A command that dies of a signal: bash says 128 + 9. The script's own death is told the same way.
    runner.run(Job::new(22, &["sh -c 'kill -9 $$'"])).expect(Verdict::Failed(137));
    runner.run(Job::new(23, &["kill -9 $$"])).expect(Verdict::Failed(137));
    // A failing after_script does not fail the job.
    runner.run(Job::new(24, &["true"]).after(&["exit 3"])).expect(Verdict::Success);
    assert_eq!(host.job(24)["state"], "succeeded");
    // get_sources that fails is tried as often as the job says, with a clean worktree in between; then the job has failed.
    let job = Job { repository: Some("file:///nowhere".to_owned()), ..Job::new(25, &["true"]) };
    let report = runner.run(job.set("GET_SOURCES_ATTEMPTS", "2"));
    assert!(matches!(report.verdict, Verdict::Failed(_)), "{:?}", report.verdict);
    let tries = ["get_sources", "clear_worktree", "get_sources", "cleanup_file_variables", "cleanup"];
    assert_eq!(report.names().split_off(3), tries);
    host.finish();
}

#[test]
fn scripts_and_output_keep_every_byte() {
    let host = TestHost::start();
    let text = "Füße – 東京 – 😀 – \u{1b}[31mred\u{1b}[0m – \\n 'quoted' \"twice\" $HOME `no` %s\tend";
    let lines = "for word in ä 日 😀; do\n  echo \"word: $word\"\n  if true; then\n    cat <<'EOT'\nindented é\n\n  $not expanded\nEOT\n  fi\ndone";
    let job =
        Job::new(31, &[lines, "printf '%s\\n' \"$TEXT\"", "printf 'no newline'; printf 'on stderr: \\377\\376' >&2"])
            .set("TEXT", text);
    let report = runner_for(&host).run(job).expect(Verdict::Success);
    // Two pipes have no order between them: stderr may come anywhere.
    let said = report.trace.replace("on stderr: \u{fffd}\u{fffd}", "");
    for word in ["ä", "日", "😀"] {
        assert!(said.contains(&format!("word: {word}\nindented é\n\n  $not expanded\n")), "{said}");
    }
    assert!(said.contains(&format!("{text}\n")), "{said}");
    let step = host.step(31, "build_script");
    let id = step["id"].as_str().expect("an id");
    let (stdout, stderr) = (host.logs(id, "stdout"), host.logs(id, "stderr"));
    assert!(stdout.ends_with(format!("{text}\n").as_bytes()) || String::from_utf8_lossy(&stdout).contains(text));
    assert!(stdout.ends_with(b"no newline"), "{:?}", String::from_utf8_lossy(&stdout));
    assert_eq!(stderr, b"on stderr: \xff\xfe");
    // 8 MiB through the live stream: nothing is lost, nothing is held back for ever.
    let long = Job::new(32, &["head -c 8388608 /dev/zero | tr '\\0' x; echo; echo done"]);
    let report = runner_for(&host).run(long).expect(Verdict::Success);
    assert!(report.trace.contains(&format!("{}\ndone\n", "x".repeat(8 << 20))), "{} bytes", report.trace.len());
    host.finish();
}

#[test]
fn output_is_live_and_stages_keep_nothing_open() {
    let host = TestHost::start();
    let job = Job::new(41, &["echo first", "while [ ! -e ../go ]; do sleep 0.05; done; echo second"]);
    let running = runner_for(&host).start(job);
    running.saw("first\n");
    // A person looks into the sandbox of the job that runs, and lets it go on.
    let leases = host.get("/v1/leases");
    let lease = leases["leases"][0]["id"].as_str().expect("the job's lease").to_owned();
    let output = host.cli(&["exec", &lease, "--", "sh", "-c", "touch /builds/group/go; ls /builds/group"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "go\nproject-7\n");
    running.saw("second\n");
    running.finish().expect(Verdict::Success);
    // A stage that leaves a process behind with its output open ends with its own process.
    let job = Job::new(42, &["sleep 1000 & echo left it"]).after(&["echo after"]);
    let start = std::time::Instant::now();
    let report = runner_for(&host).run(job).expect(Verdict::Success);
    assert!(start.elapsed() < secs(30), "the stage waited for what it left behind");
    assert!(report.trace.contains("left it\n") && report.trace.contains("after\n"), "{}", report.trace);
    host.traces.wait_no_sandbox(secs(5));
    host.finish();
}

#[test]
fn memory_and_processes_are_bounded_by_operator_and_job() {
    let host = with_ci("", "memory = \"64MiB\"\npids = 40\nmax_memory = \"192MiB\"\nmax_pids = 100").start();
    let runner = runner_for(&host);
    let eat = "python3 -c 'b = bytearray(128 << 20); print(len(b))'";
    let report = runner.run(Job::new(51, &["echo begin", eat])).expect(Verdict::Failed(137));
    assert!(report.trace.contains("begin\n"), "{}", report.trace);
    // The job may ask for more, up to the operator's bound, and is told when it does not get all.
    runner.run(Job::new(52, &[eat]).set("RUNLET_CI_MEMORY", "192MiB")).expect(Verdict::Success);
    let report = runner.run(Job::new(53, &[eat]).set("RUNLET_CI_MEMORY", "64GiB")).expect(Verdict::Success);
    assert!(report.trace.contains("192MiB") && report.trace.contains("64GiB"), "{}", report.trace);
    // A wish that is none is the job's mistake: it is named, and nothing is tried again.
    let report = runner.run(Job::new(54, &["true"]).set("RUNLET_CI_MEMORY", "lots"));
    assert!(matches!(report.verdict, Verdict::Failed(_)), "{:?}\n{}", report.verdict, report.trace);
    assert!(report.trace.contains("RUNLET_CI_MEMORY") && report.trace.contains("lots"), "{}", report.trace);
    assert_eq!(report.names(), ["config", "prepare", "cleanup"]);
    let report = runner.run(Job::new(55, &[FORKS])).expect(Verdict::Success);
    let forks = report.trace.split_once("forks=").and_then(|(_, rest)| rest.lines().next()?.parse::<u32>().ok());
    let forks = forks.unwrap_or_else(|| panic!("no number in {}", report.trace));
    assert!((5..40).contains(&forks), "{forks}");
    host.finish();
}
