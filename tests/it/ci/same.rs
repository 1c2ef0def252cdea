//! A CI job and an `exec` function are the same thing inside: same script, same end, same limits, same output.

use serde_json::json;

use super::job::Job;
use super::runner::Verdict;
use super::{runner_for, with_ci};

/// What a sandbox says of itself: limits, identity, confinement, and bytes on both streams.
const SCRIPT: &str = r#"#!/bin/bash
echo "id $(id -u):$(id -g) $(cat /proc/self/gid_map | tr -s ' ' | wc -l)"
grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status
ulimit -Sn; ulimit -Hn; ulimit -c
df -B1 --output=size /tmp /dev/shm | tail -n +2 | tr -d ' '
ls /sys 2>/dev/null | wc -l
awk 'NR > 2 { print $1 }' /proc/net/dev
touch /usr/x /etc/x / 2>/dev/null && echo writable root
head -c 100000000 /dev/zero > /tmp/full 2>/dev/null || echo "tmp is full at $((($(stat -c %s /tmp/full) + 65536) >> 20)) MiB"
rm -f /tmp/full
bash -c 'python3 -c "b = bytearray(256 << 20)"; exit $?' 2>/dev/null; echo "a hog ends with $?"
printf 'bytes \000\377\n'
printf 'on stderr \376\n' >&2
exit 42
"#;

#[test]
fn a_job_and_a_function_end_alike() {
    let host = with_ci("", "memory = \"96MiB\"\npids = 50\ntmp = \"16MiB\"\ncpu = 1.0").start();
    let manifest = "schema = 1\nname = \"same\"\nruntime = \"exec\"\nhandler = \"run.sh\"\nmemory = \"96MiB\"\npids = 50\ntmp = \"16MiB\"\ncpu = 1.0\n";
    host.deploy(&[("function.toml", manifest), ("run.sh", SCRIPT)]);
    let answer = host.call("same", &json!(null));
    let function = host.execution(&super::super::calls::execution_id(&answer));

    let running = runner_for(&host).start_until(Job::new(301, &["true"]), "cleanup_file_variables");
    running.arrives();
    let script = host.scratch().join("script");
    std::fs::write(&script, SCRIPT).expect("it is writable");
    let output = super::refusals::driver(&host, 301, &["run", script.to_str().expect("ASCII"), "same"]);
    running.go_on();
    running.finish().expect(Verdict::Success);
    let stage = host.step(301, "same");

    assert_eq!(output.status.code(), Some(77));
    assert_eq!(function["outcome"]["kind"], "exit", "{function}");
    for key in ["kind", "exit_code"] {
        assert_eq!(stage["outcome"][key], function["outcome"][key], "{key}: {stage} {function}");
    }
    assert_eq!(stage["outcome"]["exit_code"], 42);
    let id = |execution: &serde_json::Value| execution["id"].as_str().expect("an id").to_owned();
    for stream in ["stdout", "stderr"] {
        let (job, call) = (host.logs(&id(&stage), stream), host.logs(&id(&function), stream));
        let live = if stream == "stdout" { &output.stdout } else { &output.stderr };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(text(&job), text(&call), "{stream}");
        assert!(live.starts_with(&job), "{stream}: {}", text(live));
    }
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        told.contains("CapEff:\t0000000000000000\n")
            && told.contains("NoNewPrivs:\t1\n")
            && told.contains("Seccomp:\t2\n"),
        "{told}"
    );
    assert!(told.contains("a hog ends with 137\n") && told.contains("tmp is full"), "{told}");
    assert!(!told.contains("writable root"), "{told}");
    host.finish();
}
