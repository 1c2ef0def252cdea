//! Runners of the user's own, and the examples.

use serde_json::json;

use super::calls::execution_id;
use super::host::TestHost;
use super::outcomes::failure;
use super::wait::secs;

fn example(host: &TestHost, name: &str) {
    let dir = format!("{}/examples/{name}", env!("CARGO_MANIFEST_DIR"));
    let output = host.cli(&["deploy", &dir]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_runner_in_perl_serves_call_after_call() {
    let host = TestHost::start();
    example(&host, "custom-perl");
    for n in 1..=3 {
        let answer = host.call("custom-perl", &json!({"name": "you"})).expect(200);
        assert_eq!(answer.json(), json!({"greeting": "Hello, you!", "calls": n, "function": "custom-perl"}));
        let id = execution_id(&answer);
        assert_eq!(host.logs(&id, "stdout"), format!("execution {id}\n").as_bytes());
        assert_eq!(host.executed(&answer)["start"], if n == 1 { "cold" } else { "warm" });
    }
    let answer = host.call("custom-perl", &json!({})).expect(502);
    assert_eq!(answer.json()["outcome"]["error"]["message"], "who is there?");
    // A body larger than a frame goes both ways in several.
    let name = "x".repeat(3 << 20);
    let answer = host.call("custom-perl", &json!({ "name": name })).expect(200);
    assert_eq!(answer.json()["greeting"], format!("Hello, {name}!"));
    host.finish();
}

#[test]
fn the_example_in_node_counts_piece_by_piece() {
    let host = TestHost::start();
    example(&host, "stream-node");
    let answer = host.call("stream-node", &json!({"to": 3, "pause_ms": 1})).expect(200);
    assert_eq!(answer.text(), "{\"n\":1,\"of\":3}\n{\"n\":2,\"of\":3}\n{\"n\":3,\"of\":3}\n");
    assert_eq!(answer.header("Content-Type"), Some("application/x-ndjson"));
    host.call("stream-node", &json!({"to": -1})).expect(502);
    host.finish();
}

/// A runner in a few lines of python that says what the test wants; `reply` is run for each call.
fn runner(features: &str, reply: &str) -> String {
    format!(
        r#"#!/usr/bin/python3
import json, os, struct, sys, time
HEAD = struct.Struct("<IBBHQ")
def get(size):
    data = b""
    while len(data) < size:
        piece = os.read(3, size - len(data))
        if not piece:
            sys.exit(0)
        data += piece
    return data
def hear():
    length, kind, flags, _, call = HEAD.unpack(get(16))
    return kind, flags, call, get(length)
def say(kind, flags, call, body):
    os.write(3, HEAD.pack(len(body), kind, flags, 0, call) + body)
say(1, 0, 0, b'{{"versions":[1],"features":[{features}]}}')
hear()
init = json.loads(hear()[3])
say(4, 0, 0, b"{{}}")
while True:
    kind, flags, call, body = hear()
    event = None
    while not flags & 1:
        kind, flags, _, body = hear()
        event = json.loads(body)
    if kind == 7 or kind == 6:
{reply}
"#
    )
}

const MANIFEST: &str = "schema = 1\nname = \"f\"\nruntime = \"custom\"\nhandler = \"runner\"\n";

#[test]
fn a_runner_that_breaks_the_protocol_costs_its_sandbox() {
    let host = TestHost::start();
    let reply = r#"
        if event == "unknown kind":
            say(99, 0, call, b"")
        elif event == "foreign call":
            say(9, 1, call + 1, b"{}")
        elif event == "oversize":
            os.write(3, HEAD.pack((1 << 20) + 1, 9, 0, 0, call))
        elif event == "no order":
            say(7, 1, call, b"1")
        elif event == "fatal":
            say(10, 1, call, b'{"type":"Odd","message":"not fit for another","fatal":true}')
        elif event == "cancel":
            say(11, 1, call, b"{}")
        else:
            say(9, 0, call, b'{"content_type":"application/json"}')
            say(7, 1, call, json.dumps(init["env"]).encode())
"#;
    for concurrency in [1, 4] {
        let manifest = format!("{MANIFEST}concurrency = {concurrency}\n[env]\nTOKEN = \"seen\"\n");
        host.deploy(&[("function.toml", &manifest), ("runner", &runner("\"concurrency\"", reply))]);
        assert_eq!(host.value("f", &json!("fine")), json!({"TOKEN": "seen"}));
        let outcome = failure(&host, &json!("fatal"), 502, "function_error", "error");
        assert_eq!(outcome["error"]["message"], "not fit for another");
        assert_eq!(
            host.executed(&host.call("f", &json!("fine")).expect(200))["start"],
            "cold",
            "fatal at {concurrency}"
        );
        for event in ["unknown kind", "foreign call", "oversize", "no order", "cancel"] {
            failure(&host, &json!(event), 502, "runtime_error", "runtime_error");
            let after = host.call("f", &json!("fine")).expect(200);
            if event != "no order" || concurrency == 1 {
                assert_eq!(host.executed(&after)["start"], "cold", "{event} at {concurrency}");
            }
        }
    }
    host.finish();
}

#[test]
fn a_runner_that_serves_one_call_at_a_time_is_not_given_more() {
    let host = TestHost::start();
    host.deploy(&[("function.toml", &format!("{MANIFEST}concurrency = 2\n")), ("runner", &runner("", "        pass"))]);
    let outcome = failure(&host, &json!(1), 502, "runtime_error", "init_error");
    assert!(
        outcome["error"]["message"].as_str().is_some_and(|text| text.contains("\"concurrency\" in its hello")),
        "{outcome}"
    );
    host.traces.wait_no_sandbox(secs(5));
    host.finish();
}
