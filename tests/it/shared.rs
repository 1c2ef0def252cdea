//! Several calls at a time in one sandbox.

use std::thread::ScopedJoinHandle;
use std::time::Instant;

use serde_json::{Value, json};

use super::calls::{execution_id, is_terminal};
use super::host::TestHost;
use super::http::Answer;
use super::wait::{secs, until, until_some};

/// Waits until so many calls are in; then each says how many that were.
const THREADS: &str = r#"
import os, subprocess, sys, threading, time
lock = threading.Lock()
inside = most = 0

def handle(event, context):
    global inside, most
    what = event.get("what")
    with lock:
        inside += 1
        most = max(most, inside)
    try:
        print("begin", event["n"])
        if what == "meet":
            while most < event["many"]:
                time.sleep(0.01)
        elif what == "hang":
            while True:
                time.sleep(0.05)
        elif what == "wait":
            while not context.cancelled:
                time.sleep(0.02)
            print("told")
            return "stopped"
        elif what == "exit":
            os._exit(5)
        elif what == "memory":
            x = "x" * (1 << 30)
        elif what == "sleep":
            time.sleep(event["s"])
        elif what == "raise":
            raise ValueError(event["n"])
        print("end", event["n"], file=sys.stderr)
        return [os.getpid(), most]
    finally:
        with lock:
            inside -= 1
"#;

const LOOP: &str = r#"
import asyncio, os, sys
inside = most = 0

async def handle(event, context):
    global inside, most
    what = event.get("what")
    inside += 1
    most = max(most, inside)
    try:
        print("begin", event["n"])
        if what == "meet":
            while most < event["many"]:
                await asyncio.sleep(0.01)
        elif what in ("hang", "wait"):
            await asyncio.sleep(3600)
        elif what == "exit":
            os._exit(5)
        elif what == "memory":
            x = "x" * (1 << 30)
        elif what == "sleep":
            await asyncio.sleep(event["s"])
        elif what == "raise":
            raise ValueError(event["n"])
        print("end", event["n"], file=sys.stderr)
        return [os.getpid(), most]
    finally:
        inside -= 1
"#;

const NODE: &str = r#"
const pause = (ms) => new Promise((go) => setTimeout(go, ms));
let inside = 0;
let most = 0;

exports.handler = async (event, context) => {
  inside += 1;
  most = Math.max(most, inside);
  try {
    console.log('begin', event.n);
    if (event.what === 'meet') while (most < event.many) await pause(10);
    else if (event.what === 'hang') for (;;) await pause(50);
    else if (event.what === 'wait') {
      await new Promise((go) => context.signal.addEventListener('abort', go));
      console.log('told');
      return 'stopped';
    } else if (event.what === 'exit') process.exit(5);
    else if (event.what === 'memory') { const all = []; for (;;) all.push(Buffer.alloc(1 << 20, 1)); }
    else if (event.what === 'sleep') await pause(event.s * 1000);
    else if (event.what === 'raise') throw new RangeError(`${event.n}`);
    console.error('end', event.n);
    return [process.pid, most];
  } finally {
    inside -= 1;
  }
};
"#;

const NAMES: [&str; 3] = ["threads", "loop", "node"];

fn deploy_all(host: &TestHost, rest: &str) {
    host.python("threads", rest, THREADS);
    host.python("loop", rest, LOOP);
    host.node("node", rest, NODE);
}

/// Calls in a thread of its own.
fn call<'s>(
    scope: &'s std::thread::Scope<'s, '_>,
    host: &'s TestHost,
    name: &'s str,
    event: Value,
) -> ScopedJoinHandle<'s, Answer> {
    scope.spawn(move || host.call(name, &event))
}

/// The execution of `name` that runs and whose event has this `n`; it says so on stdout first of all.
fn running(host: &TestHost, name: &str, n: u64) -> Value {
    until_some("it runs", secs(20), || {
        let page = host.get(&format!("/v1/executions?function={name}&limit=50"));
        let all = page["executions"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|execution| {
            let id = execution["id"].as_str().expect("an id");
            execution["state"] == "running"
                && host
                    .http("GET", &format!("/v1/executions/{id}/logs?stream=stdout"))
                    .send()
                    .text()
                    .starts_with(&format!("begin {n}\n"))
        })
    })
}

#[test]
fn calls_meet_in_one_sandbox_and_keep_their_output_apart() {
    let host = TestHost::start();
    deploy_all(&host, "concurrency = 8\nmax_concurrency = 8\n");
    for name in NAMES {
        let answers: Vec<Answer> = std::thread::scope(|scope| {
            let calls: Vec<_> =
                (0..8).map(|n| call(scope, &host, name, json!({"what": "meet", "n": n, "many": 8}))).collect();
            calls.into_iter().map(|call| call.join().expect("no panic").expect(200)).collect()
        });
        let mut starts = Vec::new();
        for (n, answer) in answers.iter().enumerate() {
            assert_eq!(answer.json()[1], 8, "{name}");
            let (id, record) = (execution_id(answer), host.executed(answer));
            assert_eq!(host.logs(&id, "stdout"), format!("begin {n}\n").as_bytes(), "{name}");
            assert_eq!(host.logs(&id, "stderr"), format!("end {n}\n").as_bytes(), "{name}");
            assert_eq!(record["sandbox"], host.executed(&answers[0])["sandbox"], "{name}");
            assert!(record["usage"]["cpu_us"].is_null() && record["usage"]["memory_peak"].is_null(), "{record}");
            starts.push(record["start"].as_str().expect("a word").to_owned());
        }
        assert_eq!(starts.iter().filter(|start| *start == "cold").count(), 1, "{name}: {starts:?}");
    }
    host.finish();
}

#[test]
fn more_calls_than_slots_make_another_sandbox_and_more_than_turns_wait() {
    let host = TestHost::start();
    deploy_all(&host, "concurrency = 2\nmax_concurrency = 4\n");
    for name in NAMES {
        let start = Instant::now();
        let answers: Vec<Answer> = std::thread::scope(|scope| {
            let calls: Vec<_> =
                (0..8).map(|n| call(scope, &host, name, json!({"what": "sleep", "n": n, "s": 0.5}))).collect();
            calls.into_iter().map(|call| call.join().expect("no panic").expect(200)).collect()
        });
        assert!(start.elapsed() > secs(1), "{name}: more than max_concurrency ran");
        let sandboxes: std::collections::BTreeSet<String> =
            answers.iter().map(|answer| host.executed(answer)["sandbox"].to_string()).collect();
        assert_eq!(sandboxes.len(), 2, "{name}: {sandboxes:?}");
        assert!(answers.iter().all(|answer| answer.json()[1].as_u64().is_some_and(|most| most <= 2)), "{name}");
    }
    host.finish();
}

#[test]
fn one_that_is_cancelled_leaves_the_others_alone() {
    let host = TestHost::start();
    deploy_all(&host, "concurrency = 4\n");
    for name in NAMES {
        std::thread::scope(|scope| {
            let wanted = call(scope, &host, name, json!({"what": "wait", "n": 1}));
            let other = call(scope, &host, name, json!({"what": "sleep", "n": 2, "s": 1.5}));
            let (one, two) = (running(&host, name, 1), running(&host, name, 2));
            assert_eq!(one["sandbox"], two["sandbox"], "{name}");
            let id = one["invocation"].as_str().expect("an id");
            host.http("POST", &format!("/v1/invocations/{id}/cancel")).send().expect(200);
            assert!(is_terminal(&host.invocation(id)), "{name}: a cancel waits for the end");
            assert_eq!(wanted.join().expect("no panic").json()["outcome"]["kind"], "cancelled", "{name}");
            let other = other.join().expect("no panic").expect(200);
            // It has stopped, so the sandbox is as good as before.
            let next = host.call(name, &json!({"n": 3})).expect(200);
            assert_eq!(host.executed(&next)["sandbox"], host.executed(&other)["sandbox"], "{name}");
        });
    }
    host.finish();
}

#[test]
fn one_that_does_not_stop_costs_the_sandbox_when_the_others_are_done() {
    let host = TestHost::start();
    host.python("threads", "concurrency = 4\ntimeout = \"8s\"\n", THREADS);
    host.node("node", "concurrency = 4\ntimeout = \"8s\"\n", NODE);
    for name in ["threads", "node"] {
        std::thread::scope(|scope| {
            let hangs = call(scope, &host, name, json!({"what": "hang", "n": 1}));
            let other = call(scope, &host, name, json!({"what": "sleep", "n": 2, "s": 4}));
            let id = running(&host, name, 1)["invocation"].as_str().expect("an id").to_owned();
            running(&host, name, 2);
            host.http("POST", &format!("/v1/invocations/{id}/cancel")).send().expect(200);
            assert_eq!(hangs.join().expect("no panic").json()["outcome"]["kind"], "cancelled", "{name}");
            let other = other.join().expect("no panic").expect(200);
            let next = host.call(name, &json!({"n": 3})).expect(200);
            assert_ne!(host.executed(&next)["sandbox"], host.executed(&other)["sandbox"], "{name}");
            // What hung is gone with its sandbox; only the new one is left.
            until("the old sandbox is gone", secs(10), || {
                host.get("/v1/capacity")["capacity"]["sandboxes"].as_u64().is_some_and(|n| n <= 2)
                    && host
                        .traces
                        .cgroups()
                        .iter()
                        .all(|path| !path.ends_with(host.executed(&other)["sandbox"].as_str().expect("a name")))
            });
        });
    }
    host.finish();
}

#[test]
fn one_that_takes_too_long_leaves_the_others_alone() {
    let host = TestHost::start();
    deploy_all(&host, "concurrency = 4\ntimeout = \"2s\"\n");
    for name in NAMES {
        host.call(name, &json!({"n": 0})).expect(200);
        std::thread::scope(|scope| {
            let slow = call(scope, &host, name, json!({"what": "wait", "n": 1}));
            running(&host, name, 1);
            let start = Instant::now();
            let other = call(scope, &host, name, json!({"what": "sleep", "n": 2, "s": 1.8}));
            let slow = slow.join().expect("no panic").expect(504);
            assert_eq!(slow.code(), "function_timeout", "{name}");
            other.join().expect("no panic").expect(200);
            assert!(start.elapsed() < secs(4), "{name}: {:?}", start.elapsed());
        });
    }
    host.finish();
}

#[test]
fn what_ends_the_process_ends_all_of_them_with_the_same_word() {
    let host = TestHost::start();
    deploy_all(&host, "concurrency = 4\nmemory = \"96MiB\"\n");
    for name in NAMES {
        for (what, kind) in [("exit", "exit"), ("memory", "oom")] {
            std::thread::scope(|scope| {
                let other = call(scope, &host, name, json!({"what": "hang", "n": 1}));
                running(&host, name, 1);
                let culprit = host.call(name, &json!({"what": what, "n": 2})).expect(502);
                assert_eq!(culprit.json()["outcome"]["kind"], kind, "{name}");
                let other = other.join().expect("no panic").expect(502);
                assert_eq!(other.json()["outcome"]["kind"], kind, "{name}");
            });
            host.call(name, &json!({"n": 3})).expect(200);
        }
        // An error is its own call's alone.
        let raised = host.call(name, &json!({"what": "raise", "n": 7})).expect(502);
        assert_eq!(raised.json()["outcome"]["error"]["message"], "7", "{name}");
        assert_eq!(host.executed(&host.call(name, &json!({"n": 8})).expect(200))["start"], "warm");
    }
    host.finish();
}

#[test]
fn code_that_cannot_be_loaded_fails_all_who_wait_for_it() {
    let host = TestHost::start();
    host.python("f", "concurrency = 8\n", "import time\ntime.sleep(0.5)\nprint('half')\nimport nowhere\n");
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..4).map(|_| call(scope, &host, "f", json!({}))).collect();
        calls.into_iter().map(|call| call.join().expect("no panic").expect(502)).collect()
    });
    for answer in &answers {
        assert_eq!(answer.json()["outcome"]["kind"], "init_error");
        assert_eq!(answer.json()["outcome"]["error"]["type"], "ModuleNotFoundError");
    }
    host.traces.wait_no_sandbox(secs(5));
    host.finish();
}

#[test]
fn an_idle_shared_sandbox_ends_and_a_new_revision_gets_its_own() {
    let host = TestHost::builder().set("idle_timeout", "\"1s\"").start();
    host.node("node", "concurrency = 4\n", NODE);
    let first = host.call("node", &json!({"n": 1})).expect(200);
    host.node("node", "concurrency = 4\n", &format!("{NODE}// changed\n"));
    let second = host.call("node", &json!({"n": 2})).expect(200);
    assert_ne!(host.executed(&first)["sandbox"], host.executed(&second)["sandbox"]);
    host.traces.wait_no_sandbox(secs(10));
    host.call("node", &json!({"n": 3})).expect(200);
    host.finish();
}
