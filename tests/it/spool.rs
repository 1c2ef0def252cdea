//! History that is written behind: calls go on without the database, and nothing of them is forgotten.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use serde_json::json;

use super::calls::execution_id;
use super::faults::Outage;
use super::host::TestHost;
use super::wait::{secs, until};

const ECHO: &str = "def handle(event, context):\n    print(event)\n    return event\n";

#[test]
fn calls_that_were_answered_are_on_record_after_kill_9() {
    let mut host = TestHost::start();
    host.python("f", "", ECHO);
    host.value("f", &json!(0));
    host.traces.note_family(host.pid());
    let (answered, stop) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    thread::scope(|scope| {
        for worker in 0..4 {
            let (host, answered, stop) = (&host, &answered, &stop);
            scope.spawn(move || {
                for n in 0.. {
                    let Ok(answer) = host.call_request("f").body(json!([worker, n]).to_string()).try_send() else {
                        break;
                    };
                    if answer.status == 200 {
                        answered.lock().expect("no panic").push(execution_id(&answer));
                    }
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        until("some calls were answered", secs(30), || answered.lock().expect("no panic").len() > 200);
        host.signal(Signal::SIGKILL);
        stop.store(true, Ordering::Relaxed);
    });
    host.kill9();
    host.restart();
    for execution in answered.into_inner().expect("no panic") {
        assert_eq!(host.execution(&execution)["state"], "succeeded", "{execution}");
        assert!(!host.logs(&execution, "stdout").is_empty(), "{execution}");
    }
    assert_eq!(
        host.psql("SELECT count(*) FROM executions WHERE outcome IS NULL"),
        "0",
        "the others are lost, and say so"
    );
    host.finish();
}

#[test]
fn calls_go_on_while_the_database_is_away_and_their_history_follows() {
    let host = TestHost::start();
    host.python("f", "", ECHO);
    host.python("careful", "durability = \"committed\"\n", ECHO);
    host.value("f", &json!(0));
    host.value("careful", &json!(0));
    let outage = Outage::begin(&host);
    let answers: Vec<_> = (0..5).map(|n| host.call("f", &json!(n)).expect(200)).collect();
    let refused = host.call("careful", &json!(1)).expect(503);
    assert_eq!(refused.code(), "store_down");
    outage.end();
    until("the database is back", secs(60), || host.http("GET", "/healthz").send().status == 200);
    for (n, answer) in answers.iter().enumerate() {
        let execution = execution_id(answer);
        until("its history has followed", secs(20), || {
            host.http("GET", &format!("/v1/executions/{execution}")).send().status == 200
        });
        assert_eq!(host.execution(&execution)["state"], "succeeded");
        assert_eq!(host.logs(&execution, "stdout"), format!("{n}\n").as_bytes());
    }
    host.finish();
}

#[test]
fn beyond_the_bound_calls_are_refused_rather_than_forgotten() {
    let host = TestHost::builder().set("spool_max", "\"1MiB\"").start();
    host.python("f", "", "def handle(event, context):\n    return len(event)\n");
    host.value("f", &json!(""));
    let outage = Outage::begin(&host);
    let body = json!("x".repeat(200 << 10)).to_string();
    let mut done = Vec::new();
    let refused = loop {
        let answer = host.call_request("f").body(body.clone()).send();
        if answer.status != 200 {
            break answer;
        }
        done.push(execution_id(&answer));
        assert!(done.len() < 10, "1 MiB holds five such bodies");
    };
    assert_eq!((refused.status, refused.code().as_str()), (503, "store_down"));
    assert!(refused.header("Retry-After").is_some());
    assert!(done.len() >= 5, "{}", done.len());
    outage.end();
    until("calls are taken again", secs(60), || host.call_request("f").body(body.clone()).send().status == 200);
    for execution in done {
        assert_eq!(host.execution(&execution)["state"], "succeeded");
    }
    host.finish();
}
