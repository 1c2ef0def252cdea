//! Warm sandboxes: reused for their revision, never for another, and gone when idle.

use serde_json::json;

use super::calls::execution_id;
use super::host::TestHost;
use super::wait::{scaled, secs};

/// Counts the calls that its process has had.
pub(crate) const COUNTER: &str =
    "calls = 0\n\ndef handle(event, context):\n    global calls\n    calls += 1\n    return calls\n";

#[test]
fn the_second_call_finds_the_first_ones_interpreter() {
    let host = TestHost::start();
    host.python("f", "", COUNTER);
    let first = host.call("f", &json!(null)).expect(200);
    let second = host.call("f", &json!(null)).expect(200);
    assert_eq!((first.text().as_str(), second.text().as_str()), ("1", "2"));
    let (first, second) = (host.executed(&first), host.executed(&second));
    assert_eq!((&first["start"], &second["start"]), (&json!("cold"), &json!("warm")));
    assert_eq!(first["sandbox"], second["sandbox"]);
    assert_eq!(first["reset"], "warm");
    host.finish();
}

#[test]
fn a_new_revision_gets_a_new_sandbox() {
    let host = TestHost::start();
    host.python("f", "", COUNTER);
    let first = host.executed(&host.call("f", &json!(null)).expect(200));
    host.python("f", "", &format!("{COUNTER}# changed\n"));
    let answer = host.call("f", &json!(null)).expect(200);
    assert_eq!(answer.text(), "1");
    let second = host.executed(&answer);
    assert_ne!(first["sandbox"], second["sandbox"]);
    assert_ne!(first["revision"], second["revision"]);
    assert_eq!(second["start"], "cold");
    host.finish();
}

#[test]
fn an_idle_sandbox_is_destroyed() {
    let host = TestHost::builder().set("idle_timeout", "\"1s\"").start();
    host.python("f", "", COUNTER);
    host.call("f", &json!(null)).expect(200);
    assert!(!host.traces.cgroups().is_empty(), "it is kept for a while");
    host.traces.wait_no_sandbox(secs(10));
    assert_eq!(host.call("f", &json!(null)).expect(200).text(), "1");
    host.finish();
}

#[test]
fn fresh_functions_share_nothing_between_calls() {
    let host = TestHost::start();
    let code = "import os\ncalls = 0\n\ndef handle(event, context):\n    global calls\n    calls += 1\n    seen = os.listdir('/tmp')\n    open('/tmp/residue', 'w').close()\n    return [calls, seen]\n";
    host.python("f", "reset = \"fresh\"\n", code);
    for _ in 0..2 {
        let answer = host.call("f", &json!(null)).expect(200);
        assert_eq!(answer.json(), json!([1, []]));
        let record = host.executed(&answer);
        assert_eq!(record["remains"], json!({"processes": 0, "cgroups": 0, "mounts": 0, "netns": 0}));
        assert!(record["usage"]["cpu_us"].as_i64().is_some_and(|cpu| cpu > 0), "{record}");
        assert!(record["usage"]["memory_peak"].as_i64().is_some_and(|peak| peak > 1 << 20), "{record}");
    }
    host.traces.wait_no_sandbox(secs(5));
    host.finish();
}

#[test]
fn a_warm_sandbox_that_died_while_idle_is_replaced_without_an_error() {
    let host = TestHost::start();
    let code = "import os\n\ndef handle(event, context):\n    return os.getpid()\n";
    host.python("f", "", code);
    let first = host.call("f", &json!(null)).expect(200);
    host.traces.kill_sandboxed();
    host.traces.wait_no_sandbox(secs(5));
    for _ in 0..3 {
        let answer = host.call("f", &json!(null)).expect(200);
        assert_ne!(execution_id(&first), execution_id(&answer));
        assert_ne!(host.executed(&first)["sandbox"], host.executed(&answer)["sandbox"]);
    }
    host.finish();
}

#[test]
fn a_call_that_meets_the_death_of_its_warm_sandbox_is_given_another() {
    let host = TestHost::start();
    host.python("f", "", "def handle(event, context):\n    return 1\n");
    host.call("f", &json!(null)).expect(200);
    for _ in 0..scaled(15, 200) {
        // No pause: the call comes while the kernel still takes the sandbox down.
        for pid in host.traces.sandboxed() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        host.call("f", &json!(null)).expect(200);
    }
    host.finish();
}

#[test]
fn calls_at_the_same_time_get_sandboxes_of_their_own() {
    let host = TestHost::start();
    let code = "import time\nbusy = False\n\ndef handle(event, context):\n    global busy\n    assert not busy\n    busy = True\n    time.sleep(0.2)\n    busy = False\n    return 'ok'\n";
    host.python("f", "max_concurrency = 3\n", code);
    std::thread::scope(|scope| {
        for _ in 0..9 {
            scope.spawn(|| assert_eq!(host.call("f", &json!(null)).expect(200).text(), "\"ok\""));
        }
    });
    assert!(host.get("/v1/capacity")["capacity"]["sandboxes"].as_u64().is_some_and(|n| (1..=3).contains(&n)));
    host.finish();
}
