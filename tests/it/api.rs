//! The API as others use it: its document, its pages, its waits, and output as events.

use std::io::Read as _;

use serde_json::{Value, json};

use super::host::TestHost;
use super::http::Address;
use super::wait::{secs, until};

/// One event of a stream.
#[derive(Debug, Clone, PartialEq)]
struct Event {
    kind: String,
    id: String,
    data: Value,
}

/// The events of a text; comments are left out.
fn events(text: &str) -> Vec<Event> {
    let field = |block: &str, name: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim_start().to_owned()
    };
    let blocks = text.split("\n\n").filter(|block| !field(block, "data").is_empty());
    let event = |block: &str| Event {
        kind: field(block, "event"),
        id: field(block, "id"),
        data: serde_json::from_str(&field(block, "data")).expect("data is JSON"),
    };
    blocks.map(event).collect()
}

/// What the events of a stream say, joined; offsets must follow each other.
fn joined(events: &[Event], kind: &str, from: u64) -> String {
    let mut text = String::new();
    for event in events.iter().filter(|event| event.kind == kind) {
        assert_eq!(event.data["offset"], from + text.len() as u64, "{event:?}");
        text.push_str(event.data["text"].as_str().expect("it is text"));
    }
    text
}

fn follow(host: &TestHost, execution: &str, last: Option<&str>) -> super::http::Answer {
    let request = host.http("GET", &format!("/v1/executions/{execution}/logs")).header("Accept", "text/event-stream");
    match last {
        Some(id) => request.header("Last-Event-ID", id).send(),
        None => request.send(),
    }
}

const TALKS: &str = "import sys, time\n\ndef handle(event, context):\n    for n in range(6):\n        print('out', n, 'é', flush=True)\n        print('err', n, file=sys.stderr, flush=True)\n        time.sleep(0.15)\n";

#[test]
fn output_comes_as_events_and_a_reader_goes_on_where_it_was() {
    let host = TestHost::start();
    host.python("f", "", TALKS);
    let invocation = host.submit("f", &json!(null));
    let execution = host.in_state(&invocation, "running")["executions"][0].as_str().expect("an id").to_owned();
    let answer = follow(&host, &execution, None).expect(200);
    assert_eq!(answer.header("Content-Type"), Some("text/event-stream"));
    let all = events(&answer.text());
    let out: String = (0..6).map(|n| format!("out {n} é\n")).collect();
    let err: String = (0..6).map(|n| format!("err {n}\n")).collect();
    assert_eq!((joined(&all, "stdout", 0), joined(&all, "stderr", 0)), (out.clone(), err.clone()));
    let end = all.last().expect("there are some");
    assert_eq!((end.kind.as_str(), &end.data["state"]), ("end", &json!("succeeded")));
    assert!(all.len() > 4, "it came while it was written: {all:?}");

    for (nth, event) in all.iter().enumerate().filter(|(_, event)| event.kind != "end") {
        let (before_out, before_err) = (joined(&all[..=nth], "stdout", 0), joined(&all[..=nth], "stderr", 0));
        let rest = events(&follow(&host, &execution, Some(&event.id)).expect(200).text());
        assert_eq!(before_out.clone() + &joined(&rest, "stdout", before_out.len() as u64), out);
        assert_eq!(before_err.clone() + &joined(&rest, "stderr", before_err.len() as u64), err);
    }
    follow(&host, &execution, Some("end")).expect(204);
    follow(&host, &execution, Some("nonsense")).expect(422);
    follow(&host, "exe_06fcy5swzhp7d2w7k3s6cdyj1m", None).expect(404);
    host.finish();
}

#[test]
fn a_stream_of_events_ends_with_the_server_and_goes_on_with_the_next() {
    let mut host = TestHost::builder().set("stop_grace", "\"20s\"").start();
    host.python("f", "timeout = \"1m\"\n", "import time\n\ndef handle(event, context):\n    print('first', flush=True)\n    time.sleep(3)\n    print('last', flush=True)\n");
    let invocation = host.submit("f", &json!(null));
    let execution = host.in_state(&invocation, "running")["executions"][0].as_str().expect("an id").to_owned();
    let mut stream = Address::Tcp(host.address()).connect().expect("it listens");
    let head = format!(
        "GET /v1/executions/{execution}/logs HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nAuthorization: Bearer {}\r\n\r\n",
        host.token()
    );
    stream.write_all(head.as_bytes()).expect("it reads");
    let mut seen = Vec::new();
    until("the first line comes", secs(20), || {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).expect("it is open");
        seen.extend(&bytes[..count]);
        String::from_utf8_lossy(&seen).contains("first")
    });
    let text = String::from_utf8_lossy(&seen).into_owned();
    let id = text.lines().find_map(|line| line.strip_prefix("id:")).expect("the event has an id").trim().to_owned();
    host.stop();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(!String::from_utf8_lossy(&rest).contains("event:end"), "the stop is not the end of the execution");
    host.restart();
    let all = events(&follow(&host, &execution, Some(&id)).expect(200).text());
    assert_eq!(joined(&all, "stdout", 6), "last\n");
    assert_eq!(all.last().map(|event| event.data["state"].clone()), Some(json!("succeeded")));
    host.finish();
}

#[test]
fn the_document_is_there_for_everybody() {
    let host = TestHost::start();
    let served = host.http("GET", "/v1/openapi.json").anonymous().send().expect(200);
    assert!(served.text().trim() == super::contract::kept().trim(), "docs/openapi.json is not what is served");
    assert_eq!(served.header("Content-Type"), Some("application/json"));
    host.finish();
}

#[test]
fn every_list_is_read_page_by_page() {
    let host = TestHost::start();
    for name in ["a", "b", "c"] {
        host.python(name, super::calls::GITHUB_TRIGGER, "def handle(event, context):\n    return 1\n");
        host.call(name, &json!(null)).expect(200);
        host.github("ping", name, b"{}").send().expect(200);
        host.http("POST", "/v1/tokens").json(&json!({"name": name, "role": "viewer"})).send().expect(201);
    }
    let revision = host.get("/v1/functions/a")["function"]["revision"].clone();
    for alias in ["x", "y", "z"] {
        let request = host.http("PUT", &format!("/v1/functions/a/aliases/{alias}"));
        request.json(&json!({"revisions": [{"revision": revision}]})).send().expect(201);
    }
    for (path, key, cursor) in [
        ("/v1/functions", "functions", "after"),
        ("/v1/functions/a/aliases", "aliases", "after"),
        ("/v1/executions", "executions", "before"),
        ("/v1/deliveries", "deliveries", "before"),
        ("/v1/tokens", "tokens", "before"),
    ] {
        let whole = host.get(path)[key].as_array().expect("a list").clone();
        assert!(whole.len() >= 3, "{path}");
        let (mut pages, mut next) = (Vec::new(), String::new());
        loop {
            let page = host.get(&format!("{path}?limit=2{next}"));
            pages.extend(page[key].as_array().expect("a list").clone());
            match page["next"].as_str() {
                Some(cursor_value) => next = format!("&{cursor}={cursor_value}"),
                None => break,
            }
        }
        assert_eq!(pages, whole, "{path}");
    }
    host.finish();
}

#[test]
fn a_wait_ends_with_the_invocation() {
    let host = TestHost::start();
    host.python(
        "f",
        "",
        "import time\n\ndef handle(event, context):\n    time.sleep(event['sleep'])\n    return 1 / event['by']\n",
    );
    let id = host.submit("f", &json!({"sleep": 0.5, "by": 1}));
    let waited = host.get(&format!("/v1/invocations/{id}?wait=30s"));
    assert_eq!(waited["invocation"]["state"], "succeeded");
    let typed = host.cli(&["wait", &id]);
    assert_eq!(
        (typed.status.code(), String::from_utf8_lossy(&typed.stdout).trim()),
        (Some(0), format!("{id} succeeded").as_str())
    );
    let failed = host.submit("f", &json!({"sleep": 0, "by": 0}));
    let typed = host.cli(&["wait", &failed]);
    assert_eq!(typed.status.code(), Some(20), "{}", String::from_utf8_lossy(&typed.stderr));
    assert!(String::from_utf8_lossy(&typed.stdout).contains("failed (error)"));
    let long = host.submit("f", &json!({"sleep": 5, "by": 1}));
    let typed = host.cli(&["wait", &long, "--timeout", "300ms"]);
    assert_eq!(typed.status.code(), Some(124), "{}", String::from_utf8_lossy(&typed.stderr));
    host.http("POST", &format!("/v1/invocations/{long}/cancel")).send().expect(200);
    let typed = host.cli(&["wait", &long]);
    assert_eq!(typed.status.code(), Some(24), "{}", String::from_utf8_lossy(&typed.stderr));
    host.finish();
}
