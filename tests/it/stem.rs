//! Sandboxes that are started ahead: given to one revision when it is called, for good, and never in anybody's way.

use serde_json::{Value, json};

use super::host::TestHost;
use super::wait::{secs, until};

/// What code can see of where it is.
const WHERE: &str = "import os\n\ndef handle(event, context):\n    return {'code': sorted(os.listdir('/var/task')), 'cwd': os.getcwd(), 'map': open('/proc/self/uid_map').read().split()[1], 'tmp': os.listdir('/tmp'), 'mounts': open('/proc/self/mountinfo').read(), 'env': dict(os.environ)}\n";

/// How the sandbox of a call came to be.
pub(crate) fn start(host: &TestHost, function: &str) -> Value {
    host.executed(&host.call(function, &json!(null)).expect(200))["start"].clone()
}

#[test]
fn a_function_that_never_ran_finds_a_sandbox_waiting() {
    let host = TestHost::builder().stems(1, 1, 1).start();
    host.python("py", "", "def handle(event, context):\n    return 1\n");
    host.node("js", "", "exports.handler = () => 1;\n");
    host.shell("sh", "", "cat");
    for (function, again) in [("py", "warm"), ("js", "warm"), ("sh", "stem")] {
        assert_eq!(start(&host, function), "stem", "{function}");
        host.wait_stems(3);
        assert_eq!(start(&host, function), again, "{function}");
        host.wait_stems(3);
    }
    let record = host.executed(&host.call("sh", &json!(null)).expect(200));
    assert_eq!(record["remains"], json!({"processes": 0, "cgroups": 0, "mounts": 0, "netns": 0}), "{record}");
    assert!(record["usage"]["memory_peak"].as_i64().is_some_and(|peak| peak > 0), "{record}");
    let sandbox = record["sandbox"].as_str().expect("it has one").to_owned();
    let left = host.traces.cgroups().into_iter().filter(|dir| dir.ends_with(&sandbox)).count();
    assert_eq!(left, 0, "it is gone before the answer");
    host.finish();
}

#[test]
fn the_start_of_a_stem_is_on_nobodys_bill() {
    let cpu = |stems: u32, rest: &str| {
        let host = TestHost::builder().stems(stems, 0, 0).start();
        host.python("f", rest, "def handle(event, context):\n    return 1\n");
        let record = host.executed(&host.call("f", &json!(null)).expect(200));
        assert_eq!(record["start"], if stems > 0 { "stem" } else { "cold" });
        host.finish();
        record["usage"]["cpu_us"].as_i64().expect("it is known")
    };
    // Kept after the call, and destroyed after it.
    for rest in ["", "reset = \"fresh\"\n"] {
        let (stem, cold) = (cpu(1, rest), cpu(0, rest));
        assert!(stem * 2 < cold, "{rest}: {stem} {cold}");
    }
}

#[test]
fn without_stems_the_first_call_is_a_cold_one() {
    let host = TestHost::builder().stems(0, 0, 0).start();
    host.shell("sh", "", "cat");
    assert_eq!(start(&host, "sh"), "cold");
    host.finish();
}

#[test]
fn two_functions_from_stems_share_nothing() {
    let host = TestHost::builder().stems(2, 0, 0).start();
    host.python("one", "[env]\nWHO = \"one\"\n", WHERE);
    host.python("two", "[env]\nWHO = \"two\"\n", &format!("{WHERE}# another\n"));
    let (one, two) = (host.call("one", &json!(null)).expect(200), host.call("two", &json!(null)).expect(200));
    let records = [host.executed(&one), host.executed(&two)];
    assert!(records.iter().all(|record| record["start"] == "stem"), "{records:?}");
    assert_ne!(records[0]["sandbox"], records[1]["sandbox"]);
    let (one, two) = (one.json(), two.json());
    for (seen, name, own, other) in [(&one, "one", &records[0], &records[1]), (&two, "two", &records[1], &records[0])] {
        assert_eq!((&seen["env"]["WHO"], &seen["cwd"]), (&json!(name), &json!("/var/task")));
        assert_eq!((&seen["code"], &seen["tmp"]), (&json!(["function.toml", "main.py"]), &json!([])));
        let digest = |record: &Value| record["revision"].as_str().expect("text").replace("sha256:", "");
        let mounts = seen["mounts"].as_str().expect("text");
        let code = mounts.lines().find(|line| line.contains(" /var/task ")).expect("the code is a mount of its own");
        assert!(code.contains(" ro,") && code.contains("nosuid") && code.contains("nodev"), "{code}");
        assert!(code.contains(&digest(own)) && !mounts.contains(&digest(other)), "{mounts}");
    }
    assert_ne!(one["map"], two["map"], "each has a range of ids of its own");
    host.finish();
}

#[test]
fn ten_that_never_ran_start_at_once() {
    let host = TestHost::builder().stems(10, 0, 0).start();
    let names: Vec<String> = (0..10).map(|n| format!("f{n}")).collect();
    for name in &names {
        host.python(name, "", &format!("def handle(event, context):\n    return '{name}'\n"));
    }
    let host_of = &host;
    std::thread::scope(|scope| {
        let calls: Vec<_> = names
            .iter()
            .map(|name| scope.spawn(move || (name, host_of.call(name, &json!(null)).expect(200))))
            .collect();
        for call in calls {
            let (name, answer) = call.join().expect("it does not panic");
            assert_eq!(answer.json(), json!(name));
            assert_eq!(host.executed(&answer)["start"], "stem", "{name}");
        }
    });
    host.finish();
}

#[test]
fn the_limits_of_a_stem_become_the_functions() {
    let host = TestHost::builder().stems(4, 0, 0).start();
    let code = "import os\n\ndef handle(event, context):\n    if event == 'tmp':\n        with open('/tmp/x', 'wb') as f:\n            for _ in range(40):\n                f.write(bytes(1 << 20))\n        return os.statvfs('/tmp').f_blocks * os.statvfs('/tmp').f_frsize\n    return len(bytearray(event << 20))\n";
    host.python("big", "memory = \"256MiB\"\ntmp = \"48MiB\"\nreset = \"fresh\"\n", code);
    let answer = host.call("big", &json!(200)).expect(200);
    assert_eq!((answer.json(), &host.executed(&answer)["start"]), (json!(200 << 20), &json!("stem")));
    assert_eq!(host.value("big", &json!("tmp")), json!(48 << 20));
    assert_eq!(host.call("big", &json!(300)).expect(502).json()["outcome"]["kind"], "oom");
    host.python("small", "memory = \"48MiB\"\ntmp = \"1MiB\"\n", code);
    host.wait_stems(4);
    let answer = host.call("small", &json!(60)).expect(502);
    assert_eq!(answer.json()["outcome"]["kind"], "oom", "a smaller limit holds, too");
    // Node.js is told at its start how much memory there is: one of another size is made for the call.
    host.finish();
}

#[test]
fn memory_goes_to_a_large_function_and_comes_back() {
    let host = TestHost::builder().set("memory", "\"768MiB\"").set("idle_timeout", "\"1s\"").stems(4, 0, 1).start();
    host.python(
        "large",
        "memory = \"700MiB\"\n",
        "def handle(event, context):\n    return len(bytearray(600 << 20))\n",
    );
    assert_eq!(host.value("large", &json!(null)), json!(600 << 20));
    let capacity = host.get("/v1/capacity")["capacity"].clone();
    assert!(capacity["memory_used"].as_u64() <= capacity["memory_total"].as_u64(), "{capacity}");
    assert_eq!(capacity["stems"], 0, "{capacity}");
    // It cools down, and there is room for stems again.
    host.wait_stems(5);
    host.finish();
}

#[test]
fn a_stem_that_dies_is_replaced_and_nobody_notices() {
    let host = TestHost::builder().stems(2, 0, 1).start();
    host.python("f", "", "def handle(event, context):\n    return 1\n");
    let dead = host.traces.kill_sandboxed();
    assert_eq!(host.value("f", &json!(null)), json!(1), "whatever was found dead");
    until("new ones are there", secs(30), || {
        let now = host.traces.sandboxed();
        now.len() >= 5 && !now.iter().any(|pid| dead.contains(pid))
    });
    host.finish();
}

#[test]
fn stems_go_with_a_server_that_is_killed_and_come_with_the_next() {
    let mut host = TestHost::builder().stems(2, 1, 1).start();
    host.kill9();
    host.traces.expect_none(secs(10));
    host.restart();
    host.wait_stems(4);
    host.finish();
}

#[test]
fn a_deploy_does_not_find_the_old_code_in_a_stem() {
    let host = TestHost::builder().stems(2, 0, 0).start();
    for number in 0..3 {
        host.python("f", "", &format!("def handle(event, context):\n    return {number}\n"));
        assert_eq!(host.value("f", &json!(null)), json!(number));
    }
    host.finish();
}

#[test]
fn a_rush_of_first_calls_leaves_more_of_them_behind() {
    let host = TestHost::builder().stems(1, 0, 0).start();
    host.wait_stems(1);
    let names: Vec<String> = (0..4).map(|n| format!("f{n}")).collect();
    for name in &names {
        host.python(name, "memory = \"64MiB\"\n", &format!("def handle(event, context):\n    return '{name}'\n"));
    }
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| host.call(name, &json!(null)).expect(200));
        }
    });
    // At least two of the four came within a second of each other.
    until("there are more than the configuration says", secs(60), || {
        host.get("/v1/capacity")["capacity"]["stems"].as_u64() > Some(1)
    });
    host.finish();
}
