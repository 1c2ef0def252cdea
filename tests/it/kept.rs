//! Functions that are kept warm: ready before anybody calls them, and again after whatever happens to them.

use serde_json::json;

use super::host::TestHost;
use super::stem::start;
use super::wait::{secs, until};
use super::warm::COUNTER;

/// Waits until so many sandboxes are ready for their next call, and no others are there.
#[track_caller]
fn wait_ready(host: &TestHost, count: u32) {
    until(&format!("{count} are ready"), secs(30), || {
        let capacity = &host.get("/v1/capacity")["capacity"];
        capacity["parked"] == count && capacity["sandboxes"] == count
    });
}

#[test]
fn a_function_is_ready_before_its_first_call_and_does_not_cool_down() {
    let host = TestHost::builder().set("idle_timeout", "\"1s\"").start();
    host.python("kept", "min_warm = 2\n", COUNTER);
    wait_ready(&host, 2);
    assert_eq!(start(&host, "kept"), "warm", "its first call");
    // One that was called later has cooled down when those that are kept are still there.
    host.python("other", "", COUNTER);
    assert_eq!(start(&host, "other"), "cold");
    wait_ready(&host, 2);
    assert_eq!(start(&host, "kept"), "warm");
    assert_eq!(start(&host, "other"), "cold");
    host.finish();
}

#[test]
fn those_of_an_old_revision_make_place_for_those_of_the_new_one() {
    let host = TestHost::start();
    host.python("f", "min_warm = 1\n", "def handle(event, context):\n    return 'old'\n");
    wait_ready(&host, 1);
    host.python("f", "min_warm = 3\n", "def handle(event, context):\n    return 'new'\n");
    wait_ready(&host, 3);
    let answer = host.call("f", &json!(null)).expect(200);
    assert_eq!((answer.json(), &host.executed(&answer)["start"]), (json!("new"), &json!("warm")));
    host.python("f", "", "def handle(event, context):\n    return 'cold'\n");
    host.traces.wait_no_sandbox(secs(10));
    host.finish();
}

#[test]
fn one_that_died_is_replaced() {
    let host = TestHost::start();
    host.python("f", "min_warm = 1\n", COUNTER);
    wait_ready(&host, 1);
    let before = host.traces.cgroups();
    host.traces.kill_sandboxed();
    until("it is another one", secs(10), || {
        let now = host.traces.cgroups();
        !now.is_empty() && now.iter().all(|cgroup| !before.contains(cgroup))
    });
    wait_ready(&host, 1);
    assert_eq!(start(&host, "f"), "warm");
    host.finish();
}

#[test]
fn calls_that_share_a_sandbox_find_it_ready_too() {
    let host = TestHost::builder().set("idle_timeout", "\"1s\"").start();
    let code = "import asyncio\n\nasync def handle(event, context):\n    await asyncio.sleep(0.2)\n    return 1\n";
    host.python("f", "min_warm = 1\nconcurrency = 4\n", code);
    wait_ready(&host, 1);
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..4).map(|_| scope.spawn(|| start(&host, "f"))).collect();
        assert!(calls.into_iter().all(|call| call.join().expect("it ends") == "warm"));
    });
    host.python("other", "", COUNTER);
    assert_eq!(start(&host, "other"), "cold");
    wait_ready(&host, 1);
    assert_eq!(start(&host, "f"), "warm", "it has not cooled down");
    host.finish();
}

#[test]
fn a_call_gets_the_room_of_those_that_are_kept_and_they_come_back() {
    let host = TestHost::builder().set("memory", "\"320MiB\"").set("idle_timeout", "\"1s\"").stems(2, 0, 0).start();
    host.python("kept", "min_warm = 2\nmemory = \"128MiB\"\n", COUNTER);
    // Two stems of 128 MiB had the room.
    wait_ready(&host, 2);
    host.python("large", "memory = \"256MiB\"\n", COUNTER);
    assert_eq!(start(&host, "large"), "cold");
    wait_ready(&host, 2);
    assert_eq!(start(&host, "kept"), "warm");
    host.finish();
}

#[test]
fn code_that_cannot_be_loaded_is_told_to_who_calls_it_and_harms_nobody() {
    let host = TestHost::start();
    host.python("broken", "min_warm = 2\n", "raise RuntimeError('no')\n");
    host.python("f", "min_warm = 1\n", COUNTER);
    wait_ready(&host, 1);
    let answer = host.call("broken", &json!(null));
    assert_eq!(answer.json()["outcome"]["kind"], "init_error", "{}", answer.json());
    assert_eq!(start(&host, "f"), "warm");
    host.finish();
}
