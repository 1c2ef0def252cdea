//! Variables and stage names that nobody should send, and somebody does.

use std::os::unix::ffi::OsStringExt as _;

use sha2::{Digest as _, Sha256};

use super::job::Job;
use super::runner::Verdict;
use super::runner_for;
use crate::host::TestHost;
use crate::wait::secs;

#[test]
fn overridden_variables_change_neither_identity_nor_place() {
    let host = TestHost::start();
    let runner = runner_for(&host);
    let wait = "echo \"begun in $(cat /proc/sys/kernel/random/boot_id >/dev/null; hostname)\"; echo mine > /builds/mark; while [ ! -e /builds/go ]; do sleep 0.05; done";
    let victim = runner.start(Job::new(101, &[wait]).project(1));
    victim.saw("begun in");
    // A job that claims to be the other one, to steal its sandbox, its record and its project's cache.
    let mut thief = Job::new(102, &["ls /builds; touch /builds/go; echo stolen > /cache/mark"]).project(2);
    for (key, value) in [
        ("CI_JOB_ID", "101"),
        ("CI_PROJECT_ID", "1"),
        ("CI_PROJECT_PATH", "group/project-1"),
        ("CI_PIPELINE_ID", "1"),
        ("CI_JOB_NAME", "victim"),
        ("CI_JOB_URL", "https://evil.example/"),
        ("CI_SERVER_HOST", "evil.example"),
        ("CI_SERVER_URL", "https://evil.example"),
        ("CI_JOB_TIMEOUT", "999999999"),
        ("RUNLET_CI_LEASE", "../../x"),
        ("RUNLET_HOST", "http://127.0.0.1:1"),
        ("RUNLET_TOKEN", "rl_x"),
        ("RUNLET_DATA_DIR", "/nowhere"),
        ("BUILD_FAILURE_EXIT_CODE", "0"),
        ("SYSTEM_FAILURE_EXIT_CODE", "0"),
        ("BUILD_EXIT_CODE_FILE", "/etc/passwd"),
        ("JOB_RESPONSE_FILE", "/etc/passwd"),
        ("LD_PRELOAD", "/nowhere.so"),
        ("BASH_ENV", "/nowhere"),
        ("TMPDIR", "/nowhere"),
    ] {
        thief = thief.set(key, value);
    }
    let report = runner.run(thief).expect(Verdict::Success);
    assert!(!report.trace.contains("mark\n"), "{}", report.trace);
    assert!(!victim.is_over(), "the other job's file let it go on");
    let record = host.job(102);
    let facts = &record["cause"]["job"];
    assert_eq!(
        (facts["project"].as_str(), facts["project_id"].as_str()),
        (Some("group/project-2"), Some("2")),
        "{record}"
    );
    assert_eq!(facts["name"], "build", "{record}");
    let lease = host.get("/v1/leases")["leases"][0]["id"].as_str().expect("the victim's").to_owned();
    assert!(host.cli(&["exec", &lease, "--", "touch", "/builds/go"]).status.success());
    victim.finish().expect(Verdict::Success);
    let report = runner.run(Job::new(103, &["echo \"cache: $(ls /cache)\""]).project(1)).expect(Verdict::Success);
    assert!(report.trace.contains("cache: \n"), "{}", report.trace);
    host.finish();
}

#[test]
fn values_of_every_kind_arrive_as_they_are() {
    let host = TestHost::start();
    let odd: String = (1..=127_u8).map(char::from).chain("é\u{feff}\u{202e}東😀\u{fffd}".chars()).collect();
    let huge = "0123456789abcdef".repeat(7_500);
    let values = [
        ("EMPTY", String::new()),
        ("LINES", "first\n\nthird\r\n\ttab\n".to_owned()),
        ("QUOTES", "'\"`$(touch /builds/pwned)${HOME}\\ \\n %s !! ; & | > <".to_owned()),
        ("ODD", odd),
        ("HUGE", huge.clone()),
        ("HUGE_TOO", huge.clone()),
        ("EQUALS", "=a=b==".to_owned()),
        ("SPACES", "   ".to_owned()),
    ];
    let mut lines: Vec<String> = values
        .iter()
        .map(|(key, _)| format!("echo \"{key}=$(printf '%s' \"${key}\" | sha256sum | cut -d' ' -f1)\""))
        .collect();
    lines.push("ls /builds".to_owned());
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let mut job = Job::new(111, &lines).file("A_FILE", "line\n'quoted' é").file("NO_FILE", "");
    for (key, value) in &values {
        job = job.set(key, value.clone());
    }
    job.steps[0].1.push("cat \"$A_FILE\"; echo; wc -c < \"$NO_FILE\"".to_owned());
    let mut runner = runner_for(&host);
    // What the runner's own environment may hold.
    runner.host_env.push(("LANG".into(), std::ffi::OsString::from_vec(b"caf\xe9".to_vec())));
    runner.host_env.push((std::ffi::OsString::from_vec(b"N\xff".to_vec()), "x".into()));
    let report = runner.run(job).expect(Verdict::Success);
    for (key, value) in &values {
        let sum: String = Sha256::digest(value.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(report.trace.contains(&format!("{key}={sum}\n")), "{key}: {}", report.trace);
    }
    assert!(!report.trace.contains("pwned\n"), "{}", report.trace);
    assert!(report.trace.contains("line\n'quoted' é\n0\n"), "{}", report.trace);
    host.finish();
}

#[test]
fn scripts_of_megabytes_run() {
    let host = TestHost::start();
    // Values that are too long for an environment still come in the script; GitLab Runner would fail to start any driver with
    // them, so that here only the script is long.
    let lines: Vec<String> = (0..20).map(|n| format!("x{n}={}", "y".repeat(50_000))).collect();
    let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    lines.push("set +x; echo \"length ${#x19}\"");
    let report = runner_for(&host).run(Job::new(112, &lines)).expect(Verdict::Success);
    assert!(report.trace.contains("length 50000\n"));
    // What is too large for one message is the job's mistake, and is said.
    let lines: Vec<String> = (0..60).map(|n| format!("x{n}={}", "y".repeat(50_000))).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let report = runner_for(&host).run(Job::new(114, &lines)).expect(Verdict::Failed(1));
    assert!(report.trace.contains("runlet: the script of this stage is too large"));
    host.finish();
}

#[test]
fn stages_may_have_any_name() {
    let host = TestHost::start();
    let runner = runner_for(&host);
    let job = Job::new(113, &["true"]).step("release", &["true"]).step("a11y_check", &["echo in a step of tomorrow"]);
    let running = runner.start_until(job, "cleanup_file_variables");
    running.arrives();
    let script = host.scratch().join("script");
    std::fs::write(&script, "#!/bin/sh\necho \"stage ran\"; exit 7\n").expect("it is writable");
    let long = "x".repeat(300);
    for stage in ["totally_new", "step_üñí ☃", "../../etc/passwd", "-v", "--help", "", "a\nb", &long] {
        let output = super::refusals::driver(&host, 113, &["run", script.to_str().expect("ASCII"), stage]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text, "stage ran\n", "{stage:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(77), "{stage:?}");
    }
    running.go_on();
    let report = running.finish().expect(Verdict::Success);
    assert!(report.trace.contains("in a step of tomorrow\n"), "{}", report.trace);
    let record = host.job(113);
    let steps: Vec<String> =
        host.steps(&record).iter().map(|one| one["step"].as_str().unwrap_or_default().to_owned()).collect();
    for step in ["totally_new", "step_üñí ☃", "step_a11y_check"] {
        assert!(steps.iter().any(|have| have == step), "{step} is not in {steps:?}");
    }
    host.traces.wait_no_sandbox(secs(5));
    host.finish();
}
