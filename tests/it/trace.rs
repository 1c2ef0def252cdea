//! Trace context: from the caller to the code and the log, through the queue; and nothing of a request else in the log.

use serde_json::{Value, json};

use super::calls::GITHUB_TRIGGER;
use super::host::TestHost;
use super::http::Address;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const TELL: &str = "def handle(event, context):\n    return [context.traceparent, context.tracestate]\n";

fn result(host: &TestHost, invocation: &str) -> Value {
    host.settled(invocation);
    host.get(&format!("/v1/invocations/{invocation}/result"))
}

#[test]
fn a_trace_reaches_the_code_by_every_door() {
    let mut host = TestHost::builder().set("log_format", "\"json\"").start();
    host.python("py", GITHUB_TRIGGER, TELL);
    host.shell("sh", "", "printf '%s|%s' \"$TRACEPARENT\" \"$TRACESTATE\"");
    let traced = |name: &str| {
        host.call_request(name).json(&json!(1)).header("traceparent", PARENT).header("tracestate", "a=1, b=2")
    };
    assert_eq!(traced("py").send().expect(200).json(), json!([PARENT, "a=1,b=2"]));
    let answer = traced("sh").send().expect(200);
    assert_eq!(answer.text(), format!("{PARENT}|a=1,b=2"));
    assert_eq!(answer.header("traceparent"), None, "the standard has no such answer");

    let accepted = traced("py").header("Prefer", "respond-async").send().expect(202).json();
    let queued = accepted["invocation"]["id"].as_str().expect("an id").to_owned();
    assert_eq!(result(&host, &queued), json!([PARENT, "a=1,b=2"]));
    assert_eq!(host.invocation(&queued)["cause"]["trace"], json!({ "parent": PARENT, "state": "a=1,b=2" }));

    let body = br#"{"ref":"refs/heads/main"}"#;
    let answer = host.github("push", "t-1", body).header("traceparent", PARENT).send().expect(202).json();
    let hooked = answer["invocations"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(result(&host, &hooked), json!([PARENT, null]));
    host.stop();

    let lines: Vec<Value> = host.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let traced =
        |target: &str| lines.iter().filter(|line| line["target"] == target && line["trace.id"] == TRACE).count();
    assert_eq!(traced("runlet::access"), 4);
    let ends = lines.iter().filter(|line| line["message"] == "the execution has ended" && line["trace.id"] == TRACE);
    assert_eq!(ends.count(), 4);
    host.finish();
}

#[test]
fn an_accepted_trace_outlives_the_server() {
    let mut host = TestHost::builder().set("stop_grace", "\"0s\"").start();
    host.python("f", "timeout = \"1m\"\n", "import time\n\ndef handle(event, context):\n    if context.attempt == 1:\n        time.sleep(60)\n    return context.traceparent\n");
    let accepted =
        host.call_request("f").header("Prefer", "respond-async").header("traceparent", PARENT).json(&json!(1));
    let id = accepted.send().expect(202).json()["invocation"]["id"].as_str().expect("an id").to_owned();
    host.in_state(&id, "running");
    host.kill9();
    host.restart();
    assert_eq!(result(&host, &id), json!(PARENT));
    host.finish();
}

#[test]
fn a_broken_trace_is_ignored() {
    let host = TestHost::start();
    host.python("py", "", TELL);
    for broken in ["", "00-x-y-01", &PARENT.to_uppercase(), &PARENT.replacen("00", "ff", 1), "00-\u{1F600}"] {
        let answer = host.call_request("py").json(&json!(1)).header("traceparent", broken).send().expect(200);
        assert_eq!(answer.json(), json!([null, null]), "{broken}");
    }
    let twice = host.call_request("py").json(&json!(1)).header("traceparent", PARENT).header("traceparent", PARENT);
    assert_eq!(twice.send().expect(200).json(), json!([null, null]));
    let state = host.call_request("py").json(&json!(1)).header("traceparent", PARENT).header("tracestate", "no state");
    assert_eq!(state.send().expect(200).json(), json!([PARENT, null]));
    host.finish();
}

/// Every part of a request that a stranger or a user chooses holds the word; the log must not.
#[test]
fn nothing_that_a_client_sends_is_in_the_log() {
    const WORD: &str = "xyzzy-sesame";
    let mut host = TestHost::builder().set("log_format", "\"json\"").start();
    host.python("py", GITHUB_TRIGGER, "def handle(event, context):\n    print(event)\n    raise ValueError(event)\n");
    let secret = json!({ "password": WORD });
    host.call("py", &secret).expect(502);
    host.call_request("py").header("Content-Type", "application/json").body(format!("{{{WORD}")).send().expect(400);
    host.call_request("py").json(&secret).header("Cookie", WORD).header("X-Api-Key", WORD).send().expect(502);
    host.call_request("py").json(&secret).header("traceparent", format!("00-{WORD}")).header("tracestate", WORD).send();
    let anonymous = |method: &str, path: &str| host.http(method, path).anonymous();
    anonymous("GET", &format!("/{WORD}?token={WORD}")).send().expect(404);
    anonymous("GET", &format!("/v1/functions?token={WORD}")).bearer(&format!("rl_{WORD}")).send().expect(401);
    anonymous("GET", "/v1/functions").header("Authorization", format!("Basic {WORD}")).send().expect(401);
    anonymous("POST", &format!("/hooks/{WORD}")).body(WORD).send().expect(404);
    host.http("GET", &format!("/v1/executions?{WORD}={WORD}")).send().expect(422);
    host.http("GET", &format!("/v1/invocations/{WORD}")).send().expect(422);
    host.github("push", WORD, format!("{{\"a\":\"{WORD}\"}}").as_bytes())
        .header("X-Hub-Signature-256", WORD)
        .send()
        .expect(401);
    for raw in [
        format!("{WORD} / HTTP/1.1\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{WORD}\r\n\r\n"),
        format!("GET / HTTP/9.9\r\nX: {WORD}\r\n\r\n"),
        format!(
            "POST /hooks/gh HTTP/1.1\r\nHost: {WORD}\r\nTransfer-Encoding: {WORD}\r\nContent-Length: 1\r\n\r\n{WORD}"
        ),
        format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{WORD}"),
    ] {
        let mut stream = Address::Tcp(host.address()).connect().expect("it listens");
        let _ = stream.write_all(raw.as_bytes());
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    }
    host.stop();
    let log = host.log();
    let telling: Vec<&str> = log.lines().filter(|line| line.contains("sesame")).collect();
    assert!(telling.is_empty(), "{}", telling.join("\n"));
    assert!(log.lines().filter(|line| line.contains("runlet::access")).count() >= 10, "the rest is there");
    host.finish();
}
