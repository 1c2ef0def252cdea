//! Output is two byte streams: nothing in it can break a function, and all of it belongs to its execution.

use serde_json::json;

use super::calls::execution_id;
use super::host::TestHost;

const NASTY: &str = r#"
import sys, os

def handle(event, context):
    if event["what"] == "long line":
        sys.stdout.write("x" * (10 << 20))
    elif event["what"] == "bytes":
        sys.stdout.buffer.write(bytes(range(256)) * 16)
        sys.stderr.buffer.write(b"\x00\xff\xfe\x80 no newline at the end")
        os.write(1, b"raw\x00")
    elif event["what"] == "text":
        print("lone \ud800 surrogate, \x1b[31mred\x1b[0m, \r\n")
    else:
        print("call", event["n"])
        print("err", event["n"], file=sys.stderr)
    return event
"#;

#[test]
fn a_line_of_ten_megabytes_arrives_intact() {
    let host = TestHost::start();
    host.python("nasty", "", NASTY);
    let answer = host.call("nasty", &json!({"what": "long line"})).expect(200);
    let bytes = host.logs(&execution_id(&answer), "stdout");
    assert_eq!(bytes.len(), 10 << 20);
    assert!(bytes.iter().all(|byte| *byte == b'x'));
    let record = host.executed(&answer);
    assert_eq!(record["log_bytes"], 10 << 20);
    assert_eq!(record["log_dropped"], 0);
    host.finish();
}

#[test]
fn bytes_that_are_no_text_arrive_intact() {
    let host = TestHost::start();
    host.python("nasty", "", NASTY);
    let answer = host.call("nasty", &json!({"what": "bytes"})).expect(200);
    let mut expected: Vec<u8> = (0..=255).collect::<Vec<u8>>().repeat(16);
    let stdout = host.logs(&execution_id(&answer), "stdout");
    let raw = b"raw\x00";
    assert_eq!(stdout.len(), expected.len() + raw.len());
    expected.extend(raw);
    // The interpreter's buffer and a raw write may come in either order; no byte may be lost.
    let mut sorted = (stdout, expected);
    sorted.0.sort_unstable();
    sorted.1.sort_unstable();
    assert!(sorted.0 == sorted.1);
    assert_eq!(host.logs(&execution_id(&answer), "stderr"), b"\x00\xff\xfe\x80 no newline at the end");
    host.call("nasty", &json!({"what": "text"})).expect(200);
    host.finish();
}

#[test]
fn all_output_of_a_call_belongs_to_its_execution() {
    let host = TestHost::start();
    host.python("nasty", "", NASTY);
    for n in 0..20 {
        let id = execution_id(&host.call("nasty", &json!({"what": "", "n": n})).expect(200));
        assert_eq!(host.logs(&id, "stdout"), format!("call {n}\n").as_bytes());
        assert_eq!(host.logs(&id, "stderr"), format!("err {n}\n").as_bytes());
    }
    host.finish();
}

#[test]
fn output_of_processes_is_kept_the_same_way() {
    let host = TestHost::start();
    host.shell("bytes", "", r"printf 'result'; printf '\000\377 tail' >&2");
    let answer = host.call("bytes", &json!({})).expect(200);
    assert_eq!(answer.body, b"result");
    let id = execution_id(&answer);
    assert_eq!(host.logs(&id, "stdout"), b"result");
    assert_eq!(host.logs(&id, "stderr"), b"\x00\xff tail");
    host.finish();
}

#[test]
fn output_beyond_the_cap_is_counted_and_the_function_goes_on() {
    let host = TestHost::builder().set("max_log", "\"1MiB\"").start();
    host.python("nasty", "", NASTY);
    let answer = host.call("nasty", &json!({"what": "long line"})).expect(200);
    let record = host.executed(&answer);
    assert_eq!(record["log_bytes"], 1 << 20);
    assert_eq!(record["log_dropped"], 9 << 20);
    assert_eq!(host.logs(&execution_id(&answer), "stdout").len(), 1 << 20);
    host.finish();
}

#[test]
fn logs_can_be_followed_while_the_function_runs() {
    let host = TestHost::start();
    let code = "import time\n\ndef handle(event, context):\n    print('first', flush=True)\n    time.sleep(3600)\n";
    host.python("slow", "timeout = \"60s\"\n", code);
    let id = host.submit("slow", &json!(null));
    let execution = host.in_state(&id, "running")["executions"][0].as_str().expect("an id").to_owned();
    let path = format!("/v1/executions/{execution}/logs?offset=0&wait=20s");
    let piece = host.http("GET", &path).send().expect(200);
    assert_eq!(piece.body, b"first\n");
    assert_eq!(piece.header("Runlet-Log-End"), Some("false"));
    host.http("POST", &format!("/v1/invocations/{id}/cancel")).send().expect(200);
    assert_eq!(host.logs(&execution, "stdout"), b"first\n");
    host.finish();
}
