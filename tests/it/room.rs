//! Room on the host and who gets it: fair shares, why something waits, limits that change while code runs, the bill, and deploys
//! under load.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::calls::execution_id;
use super::host::TestHost;
use super::http::Answer;
use super::wait::{scaled, secs, until, until_some};

const SLEEP: &str = "import time\n\ndef handle(event, context):\n    time.sleep(event)\n    return event\n";

/// Allocates so many MiB and gives them back; says what it believes its limit to be.
const GRAB: &str = "def handle(event, context):\n    x = bytearray(event << 20)\n    n = len(x)\n    del x\n    return [n, context.memory_limit]\n";

fn settings(host: &TestHost, name: &str, change: &Value) -> Answer {
    host.http("PATCH", &format!("/v1/functions/{name}/settings")).json(change).send()
}

fn explain(host: &TestHost, id: &str) -> Value {
    host.get(&format!("/v1/invocations/{id}/explain"))["explanation"].clone()
}

/// How many executions of a function have begun or ended.
fn begun(host: &TestHost, name: &str) -> usize {
    let query = format!("SELECT count(*) FROM executions WHERE function = '{name}'");
    host.psql(&query).parse().expect("a number")
}

#[test]
fn a_backlog_of_one_function_does_not_hold_another_one_back() {
    // Room for one sandbox, and thousands that want it.
    let host = TestHost::builder().set("max_sandboxes", "1").set("max_queued", "20000").start();
    for name in ["a", "b"] {
        host.python(name, "max_concurrency = 50\n", SLEEP);
    }
    let first = host.submit("a", &json!(0.05));
    host.settled(&first);
    let many = scaled(2_000, 10_000);
    host.psql(&format!(
        "WITH one AS (SELECT * FROM invocations LIMIT 1),
           made AS (
             INSERT INTO invocations (id, namespace, function, revision, cause_kind, cause, state, attempts, executions, content_type,
                 payload, payload_size, created_at)
             SELECT (left(one.id::text, 24) || lpad(to_hex(n), 12, '0'))::uuid, namespace, function, revision, cause_kind, cause, 'queued', 0,
                 '{{}}', content_type, payload, payload_size, created_at
             FROM one, generate_series(1, {many}) AS n
             RETURNING id, namespace, function, revision, cause_kind)
         INSERT INTO queue (invocation, namespace, function, revision, cause_kind, reset, on_lost, max_concurrency, memory, priority, not_before)
         SELECT id, namespace, function, revision, cause_kind, 'warm', 'retry', 50, 134217728, 0, now() - interval '1 hour' FROM made"
    ));
    until("the backlog is worked on", secs(10), || begun(&host, "a") > 5);
    let before = begun(&host, "a");
    let id = host.submit("b", &json!(0));
    let settled = host.settled(&id);
    assert_eq!(settled["state"], "succeeded");
    let passed = begun(&host, "a") - before;
    assert!(passed < 40, "{passed} of the backlog went before it");
    let left: usize = host.psql("SELECT count(*) FROM queue WHERE function = 'a'").parse().expect("a number");
    assert!(left > many / 2, "the backlog was not there any more");
    host.finish();
}

#[test]
fn callers_share_the_host_and_whoever_waits_is_told_behind_what() {
    let host = TestHost::builder().set("max_sandboxes", "1").set("max_waiting", "8").start();
    for name in ["a", "b"] {
        host.python(name, "max_concurrency = 50\ntimeout = \"30s\"\n", SLEEP);
    }
    host.call("a", &json!(0)).expect(200);
    let refused = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                let answer = host.call("a", &json!(0.5));
                match answer.status {
                    200 => {}
                    429 => {
                        assert_eq!(answer.code(), "queue_full");
                        assert!(answer.header("Retry-After").is_some());
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                    other => panic!("{other}: {}", answer.text()),
                }
            });
        }
        until("they wait", secs(10), || host.get("/v1/capacity")["capacity"]["waiting"] == 8);
        // The queue is full of A: B is let in all the same, and is next.
        let start = Instant::now();
        let b = scope.spawn(|| host.call("b", &json!(0)));
        let waiting = until_some("b waits on record", secs(5), || {
            let all = host.get("/v1/executions?function=b&limit=1");
            all["executions"][0]["invocation"].as_str().map(str::to_owned)
        });
        let why = explain(&host, &waiting);
        if why["limit"] != Value::Null {
            assert_eq!((&why["limit"], &why["ahead"]), (&json!("max_sandboxes"), &json!(0)), "{why}");
            assert_eq!(why["holders"][0]["function"], "a", "{why}");
            assert!(why["holders"][0]["memory"].as_u64().is_some_and(|memory| memory == 128 << 20), "{why}");
        }
        b.join().expect("it does not panic").expect(200);
        assert!(start.elapsed() < secs(4), "{:?}: it waited behind all of them", start.elapsed());
    });
    assert!(refused.load(Ordering::Relaxed) >= 1, "somebody had to go");
    host.finish();
}

#[test]
fn why_names_the_limit_and_the_holder() {
    let host = TestHost::start();
    host.python("f", "max_concurrency = 1\ntimeout = \"1m\"\n", SLEEP);
    let runs = host.submit("f", &json!(60));
    host.in_state(&runs, "running");
    until("it has the event", secs(10), || {
        host.get("/v1/executions?state=running")["executions"].as_array().is_some_and(|all| all.len() == 1)
    });
    let waits: Vec<String> = (0..3).map(|_| host.submit("f", &json!(0))).collect();
    let why = explain(&host, &waits[2]);
    assert_eq!(
        (&why["state"], &why["limit"], &why["ahead"]),
        (&json!("queued"), &json!("max_concurrency"), &json!(2)),
        "{why}"
    );
    assert_eq!(why["holders"], json!([{ "invocation": runs }]));
    assert!(why["reason"].as_str().is_some_and(|reason| reason.contains("max_concurrency")), "{why}");
    let told = host.cli(&["why", &waits[0]]);
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(text.contains("max_concurrency") && text.contains(&runs), "{text}");
    let told: Value = serde_json::from_slice(&host.cli(&["why", &waits[0], "--json"]).stdout).expect("it is JSON");
    assert_eq!(told["explanation"]["ahead"], 0);
    assert_eq!(explain(&host, &runs)["limit"], Value::Null);
    host.http("POST", &format!("/v1/invocations/{runs}/cancel")).send().expect(200);
    for id in &waits {
        assert_eq!(host.settled(id)["state"], "succeeded");
    }
    assert!(explain(&host, &waits[0])["reason"].as_str().is_some_and(|reason| reason.contains("does not wait")));
    host.finish();
}

#[test]
fn limits_change_under_a_warm_sandbox_at_once() {
    let mut host = TestHost::start();
    host.python("f", "memory = \"64MiB\"\ntimeout = \"20s\"\n", GRAB);
    let first = host.call("f", &json!(1)).expect(200);
    assert_eq!(first.json(), json!([1 << 20, 64 << 20]));
    let before = host.get("/v1/capacity")["capacity"]["memory_used"].as_u64().expect("a number");
    let set = settings(&host, "f", &json!({ "memory": "256MiB", "cpu": 2, "pids": 100 })).expect(200);
    assert_eq!(set.json()["settings"]["memory"], "256MiB");
    assert_eq!(set.json()["limits"]["pids"], 100);
    let now = host.get("/v1/capacity")["capacity"]["memory_used"].as_u64().expect("a number");
    assert_eq!(now - before, 192 << 20, "the host accounts for it");
    // What did not fit before fits now, in the same sandbox; the code sees the new limit.
    let second = host.call("f", &json!(150)).expect(200);
    assert_eq!(second.json(), json!([150 << 20, 256 << 20]));
    assert_eq!(host.executed(&first)["sandbox"], host.executed(&second)["sandbox"]);
    // Over a deploy and a restart it stays, and another function does not have it.
    host.python("f", "memory = \"64MiB\"\ntimeout = \"20s\"\n", &format!("{GRAB}# changed\n"));
    assert_eq!(host.call("f", &json!(150)).expect(200).json()[1], 256 << 20);
    host.restart_in_order();
    assert_eq!(host.call("f", &json!(150)).expect(200).json()[1], 256 << 20);
    assert_eq!(host.get("/v1/functions/f")["function"]["settings"]["memory"], "256MiB");
    host.python("g", "memory = \"64MiB\"\n", GRAB);
    assert_eq!(host.call("g", &json!(1)).expect(200).json()[1], 64 << 20);
    // Down again, with the same sandbox; then it is too little.
    let cleared = host.cli(&["set", "f", "--clear"]);
    assert!(cleared.status.success(), "{}", String::from_utf8_lossy(&cleared.stderr));
    assert!(String::from_utf8_lossy(&cleared.stdout).contains("memory 64MiB (function.toml)"));
    assert_eq!(host.call("f", &json!(150)).expect(502).code(), "function_oom");
    host.finish();
}

#[test]
fn code_that_runs_has_its_new_limit_within_a_second() {
    let host = TestHost::start();
    let code = "import time\n\ndef handle(event, context):\n    print('go', flush=True)\n    end = time.time() + 10\n    while time.time() < end:\n        try:\n            limit = int(open('/sys/fs/cgroup/none').read())\n        except OSError:\n            pass\n        time.sleep(0.7)\n        x = bytearray(150 << 20)\n        return len(x)\n";
    host.python("f", "memory = \"64MiB\"\ntimeout = \"20s\"\n", code);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| host.call("f", &json!(null)));
        until("it runs", secs(10), || {
            host.get("/v1/executions?state=running")["executions"].as_array().is_some_and(|all| !all.is_empty())
        });
        settings(&host, "f", &json!({ "memory": "256MiB" })).expect(200);
        assert_eq!(call.join().expect("it does not panic").expect(200).json(), json!(150 << 20));
    });
    host.finish();
}

#[test]
fn what_cannot_be_is_refused_with_a_reason_and_changes_nothing() {
    let host = TestHost::builder().set("memory", "\"512MiB\"").start();
    let hold = "held = None\n\ndef handle(event, context):\n    global held\n    held = bytearray(event << 20)\n    return context.memory_limit\n";
    host.python("f", "memory = \"192MiB\"\n", hold);
    assert_eq!(host.call("f", &json!(100)).expect(200).json(), 192 << 20);
    let says = |change: Value, status: u16, words: &str| {
        let answer = settings(&host, "f", &change).expect(status);
        assert!(answer.text().contains(words), "{}", answer.text());
    };
    says(json!({ "memory": "30MiB" }), 422, "the python runtime itself needs");
    says(json!({ "memory": "1GiB" }), 422, "more than this host has");
    says(json!({ "memory": "64MiB" }), 409, "in use there now");
    says(json!({ "cpu": 0 }), 422, "cpu");
    says(json!({ "timeout": "1s" }), 422, "unknown field");
    // Another function has the memory, and uses it.
    host.python("g", "memory = \"256MiB\"\ntimeout = \"1m\"\n", SLEEP);
    let busy = host.submit("g", &json!(60));
    host.in_state(&busy, "running");
    until("it has the event", secs(10), || {
        host.get("/v1/executions?state=running")["executions"].as_array().is_some_and(|all| all.len() == 1)
    });
    says(json!({ "memory": "300MiB" }), 409, "missing on this host");
    assert_eq!(host.call("f", &json!(1)).expect(200).json(), 192 << 20, "nothing has changed");
    // Once that is idle it makes room.
    host.http("POST", &format!("/v1/invocations/{busy}/cancel")).send().expect(200);
    host.settled(&busy);
    let set = settings(&host, "f", &json!({ "memory": "500MiB" })).expect(200);
    assert_eq!(host.call("f", &json!(300)).expect(200).json(), 500 << 20);
    let tag = set.header("ETag").expect("it has one").to_owned();
    let patch = |tag: &str| {
        host.http("PATCH", "/v1/functions/f/settings").header("If-Match", tag).json(&json!({ "pids": 80 })).send()
    };
    patch(&tag).expect(200);
    assert_eq!(patch(&tag).expect(412).code(), "precondition_failed");
    settings(&host, "nobody", &json!({ "pids": 80 })).expect(404);
    host.finish();
}

#[test]
fn memory_of_a_large_function_is_there_for_others_once_it_has_cooled_down() {
    let host = TestHost::builder().set("memory", "\"320MiB\"").set("idle_timeout", "\"1s\"").start();
    let used = || host.get("/v1/capacity")["capacity"]["memory_used"].as_u64().expect("a number");
    host.python("large", "memory = \"64MiB\"\n", GRAB);
    for name in ["one", "two", "three", "four"] {
        host.python(name, "memory = \"64MiB\"\n", SLEEP);
    }
    for round in 0..2 {
        for name in ["one", "two", "three", "four"] {
            host.call(name, &json!(0)).expect(200);
        }
        host.call("large", &json!(1)).expect(200);
        // It takes what the idle ones give back.
        settings(&host, "large", &json!({ "memory": "300MiB" })).expect(200);
        assert_eq!(host.call("large", &json!(200)).expect(200).json()[1], 300 << 20, "round {round}");
        host.traces.wait_no_sandbox(secs(15));
        until("all of it is free", secs(5), || used() == 0);
        settings(&host, "large", &json!({ "memory": null })).expect(200);
    }
    host.finish();
}

#[test]
fn the_bill_says_what_calibrated_burners_have_used() {
    let host = TestHost::start();
    let code = "import time\n\ndef handle(event, context):\n    x = bytearray(event['mib'] << 20)\n    end = time.process_time() + event['s']\n    while time.process_time() < end:\n        pass\n    return len(x)\n";
    host.python("f", "memory = \"256MiB\"\ntimeout = \"20s\"\n", code);
    let burn = |s: f64, mib: u64| {
        let answer = host.call("f", &json!({ "s": s, "mib": mib })).expect(200);
        host.executed(&answer)
    };
    let cold = burn(0.0, 0);
    let number =
        |record: &Value, name: &str| record["usage"][name].as_i64().unwrap_or_else(|| panic!("{name}: {record}"));
    assert!(number(&cold, "start_us") > 1_000, "a sandbox was made: {cold}");
    let base = number(&burn(0.0, 0), "memory_peak");
    for (s, mib) in [(0.3, 64), (0.6, 0), (0.0, 128), (0.0, 0)] {
        let record = burn(s, mib);
        assert_eq!(record["start"], "warm");
        #[expect(clippy::cast_precision_loss, reason = "microseconds of a test")]
        let (cpu, wall) = (number(&record, "cpu_us") as f64 / 1e6, number(&record, "wall_us") as f64 / 1e6);
        assert!((cpu - s).abs() <= 0.1 * s + 0.02, "{s} s were burnt: {record}");
        assert!(wall >= s && number(&record, "wait_us") >= 0 && number(&record, "start_us") < 1_000_000, "{record}");
        #[expect(clippy::cast_precision_loss, reason = "bytes of a test")]
        let (grown, asked) = ((number(&record, "memory_peak") - base) as f64, (mib << 20) as f64);
        // Half a MiB is what an interpreter does for itself.
        assert!((grown - asked).abs() <= 0.1 * asked + f64::from(1 << 20), "{mib} MiB were taken: {record}");
    }
    let shown = host.cli(&["show", cold["id"].as_str().expect("an id")]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(text.contains("waited") && text.contains("cpu time") && text.contains("memory peak"), "{text}");
    host.finish();
}

#[test]
fn calls_that_share_a_sandbox_have_no_bill_of_their_own_and_waiting_is_on_it() {
    let host = TestHost::start();
    host.python("shared", "concurrency = 4\n", SLEEP);
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..3).map(|_| scope.spawn(|| host.call("shared", &json!(0.2)).expect(200))).collect();
        for call in calls {
            let record = host.executed(&call.join().expect("it does not panic"));
            assert!(record["usage"]["cpu_us"].is_null() && record["usage"]["memory_peak"].is_null(), "{record}");
            assert!(record["usage"]["wall_us"].as_i64().is_some_and(|wall| wall >= 200_000), "{record}");
        }
    });
    host.python("one", "max_concurrency = 1\n", SLEEP);
    host.call("one", &json!(0)).expect(200);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| host.call("one", &json!(0.6)).expect(200));
        until("it runs", secs(5), || {
            host.get("/v1/executions?state=running")["executions"].as_array().is_some_and(|all| !all.is_empty())
        });
        let second = host.executed(&host.call("one", &json!(0)).expect(200));
        assert!(second["usage"]["wait_us"].as_i64().is_some_and(|wait| wait > 100_000), "{second}");
        first.join().expect("it does not panic");
    });
    host.finish();
}

#[test]
fn deploys_and_rollbacks_under_load_fail_no_call() {
    let host = TestHost::start();
    let code = |n: u32| format!("def handle(event, context):\n    return {n}\n");
    host.python("f", "max_concurrency = 8\n", &code(0));
    host.call("f", &json!(null)).expect(200);
    let (stop, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    // 500 a second in all: each of four callers sends every 8 ms, on time or late.
    let pace = Duration::from_millis(8);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut next = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    host.call("f", &json!(null)).expect(200);
                    calls.fetch_add(1, Ordering::Relaxed);
                    next = (next + pace).max(Instant::now() - pace);
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                }
            });
        }
        for n in 1..=scaled(3, 10) {
            let (seen, about) = (calls.load(Ordering::Relaxed), 100);
            host.python("f", "max_concurrency = 8\n", &code(n));
            // A call that is made behind the deploy gets the new revision.
            assert_eq!(host.call("f", &json!(null)).expect(200).json(), n);
            until("the load goes on", secs(20), || calls.load(Ordering::Relaxed) > seen + about);
            assert!(host.cli(&["rollback", "f"]).status.success());
            assert_eq!(host.call("f", &json!(null)).expect(200).json(), n - 1);
            host.python("f", "max_concurrency = 8\n", &code(n));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let failed = host.get("/v1/executions?state=failed");
    assert_eq!(failed["executions"], json!([]));
    host.finish();
}

#[test]
fn what_runs_ends_on_the_revision_it_began_with() {
    let host = TestHost::start();
    let code = |n: u32| {
        format!(
            "import time\n\ndef handle(event, context):\n    print('go', flush=True)\n    time.sleep(event)\n    return {n}\n"
        )
    };
    host.python("f", "", &code(1));
    std::thread::scope(|scope| {
        let old = scope.spawn(|| host.call("f", &json!(1)));
        until("it runs", secs(10), || {
            host.get("/v1/executions?state=running")["executions"].as_array().is_some_and(|all| !all.is_empty())
        });
        host.python("f", "", &code(2));
        let new = host.call("f", &json!(0)).expect(200);
        let old = old.join().expect("it does not panic").expect(200);
        assert_eq!((old.json(), new.json()), (json!(1), json!(2)));
        assert_ne!(execution_id(&old), execution_id(&new));
    });
    host.finish();
}
