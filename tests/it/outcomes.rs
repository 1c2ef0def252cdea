//! How an execution ended is told apart and on record; a function that failed is never a 2xx.

use std::time::Instant;

use serde_json::{Value, json};

use super::calls::python_manifest;
use super::host::TestHost;
use super::wait::secs;

const CODE: &str = r#"
import os, signal, sys, time

def deeper(text):
    raise ValueError(text)

def handle(event, context):
    what = event["what"]
    if what == "raise":
        deeper("bad \x00 thing\nsecond line")
    elif what == "exit":
        sys.exit(3)
    elif what == "hard exit":
        os._exit(0)
    elif what == "signal":
        os.kill(os.getpid(), signal.SIGKILL if event.get("kill") else signal.SIGSEGV)
    elif what == "memory":
        return len("x" * (1 << 30))
    elif what == "sleep":
        time.sleep(3600)
    elif what == "stubborn":
        for number in range(1, 32):
            try:
                signal.signal(number, signal.SIG_IGN)
            except OSError:
                pass
        while True:
            time.sleep(1)
    elif what == "nan":
        return float("nan")
    elif what == "object":
        return object()
    elif what == "big":
        return "x" * event["size"]
    elif what == "garbage":
        os.write(3, b"\xff" * 64)
        time.sleep(60)
    return "fine"
"#;

#[track_caller]
pub(crate) fn failure(host: &TestHost, event: &Value, status: u16, code: &str, kind: &str) -> Value {
    let answer = host.call("f", event).expect(status);
    let problem = answer.json();
    assert_eq!(problem["code"], code, "{problem}");
    assert_eq!(problem["outcome"]["kind"], kind, "{problem}");
    let record = host.executed(&answer);
    assert_eq!(record["outcome"]["kind"], kind);
    assert_eq!(record["state"], "failed");
    let invocation = host.invocation(record["invocation"].as_str().expect("an id"));
    assert_eq!(invocation["state"], "failed");
    problem["outcome"].clone()
}

#[test]
fn an_exception_comes_with_type_message_and_traceback() {
    let host = TestHost::start();
    host.python("f", "", CODE);
    let outcome = failure(&host, &json!({"what": "raise"}), 502, "function_error", "error");
    assert_eq!(outcome["error"]["type"], "ValueError");
    let message = outcome["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("bad") && message.contains("thing"), "{message:?}");
    let trace = outcome["error"]["trace"].to_string();
    assert!(trace.contains("deeper") && trace.contains("main.py"), "{trace}");
    assert!(!trace.contains("runner.py"), "the runner's own frames are not the user's business: {trace}");
    // A raised error does not cost the sandbox.
    assert_eq!(host.executed(&host.call("f", &json!({"what": ""})).expect(200))["start"], "warm");
    host.finish();
}

#[test]
fn exits_and_signals_are_told_apart() {
    let host = TestHost::start();
    host.python("f", "", CODE);
    assert_eq!(failure(&host, &json!({"what": "exit"}), 502, "function_error", "exit")["exit_code"], 3);
    assert_eq!(failure(&host, &json!({"what": "hard exit"}), 502, "function_error", "exit")["exit_code"], 0);
    assert_eq!(failure(&host, &json!({"what": "signal"}), 502, "function_error", "signal")["signal"], 11);
    assert_eq!(failure(&host, &json!({"what": "signal", "kill": true}), 502, "function_error", "signal")["signal"], 9);
    host.call("f", &json!({"what": ""})).expect(200);
    host.finish();
}

#[test]
fn a_memory_bomb_ends_as_oom() {
    let host = TestHost::start();
    host.python("f", "memory = \"64MiB\"\n", CODE);
    failure(&host, &json!({"what": "memory"}), 502, "function_oom", "oom");
    host.call("f", &json!({"what": ""})).expect(200);
    host.finish();
}

#[test]
fn the_timeout_ends_even_who_ignores_every_signal() {
    let host = TestHost::start();
    host.python("f", "timeout = \"1s\"\n", CODE);
    host.call("f", &json!({"what": ""})).expect(200);
    for what in ["sleep", "stubborn"] {
        let start = Instant::now();
        failure(&host, &json!({ "what": what }), 504, "function_timeout", "timeout");
        assert!(start.elapsed() >= secs(1) && start.elapsed() < secs(3), "{what}: {:?}", start.elapsed());
    }
    host.traces.wait_no_sandbox(secs(5));
    host.finish();
}

#[test]
fn results_that_are_no_json_are_the_functions_error() {
    let host = TestHost::builder().set("max_result", "\"1MiB\"").start();
    host.python("f", "", CODE);
    failure(&host, &json!({"what": "nan"}), 502, "function_error", "error");
    failure(&host, &json!({"what": "object"}), 502, "function_error", "error");
    let outcome = failure(&host, &json!({"what": "big", "size": 2 << 20}), 502, "runtime_error", "runtime_error");
    assert!(outcome["error"]["message"].as_str().is_some_and(|text| text.contains("1MiB")), "{outcome}");
    let answer = host.call("f", &json!({"what": "big", "size": 900_000})).expect(200);
    assert_eq!(answer.body.len(), 900_002);
    host.finish();
}

#[test]
fn garbage_on_the_control_socket_is_a_runtime_error() {
    let host = TestHost::start();
    host.python("f", "", CODE);
    failure(&host, &json!({"what": "garbage"}), 502, "runtime_error", "runtime_error");
    host.traces.wait_no_sandbox(secs(5));
    host.call("f", &json!({"what": ""})).expect(200);
    host.finish();
}

#[test]
fn code_that_cannot_be_loaded_is_an_init_error() {
    let host = TestHost::start();
    host.python("f", "", "import nonsense_module\n\ndef handle(event, context):\n    return 1\n");
    let outcome = failure(&host, &json!(null), 502, "runtime_error", "init_error");
    assert_eq!(outcome["error"]["type"], "ModuleNotFoundError");
    host.deploy(&[("function.toml", &python_manifest("f", "")), ("main.py", "def other(event, context):\n    pass\n")]);
    let outcome = failure(&host, &json!(null), 502, "runtime_error", "init_error");
    assert!(outcome["error"]["message"].as_str().is_some_and(|text| text.contains("handle")), "{outcome}");
    host.finish();
}

#[test]
fn processes_tell_their_end_the_same_way() {
    let host = TestHost::start();
    host.shell(
        "f",
        "timeout = \"2s\"\nmemory = \"32MiB\"\n",
        r#"
case "$(cat)" in
    '{"what":"exit"}') exit 3 ;;
    '{"what":"signal"}') kill -SEGV $$ ;;
    '{"what":"sleep"}') sleep 3600 ;;
    '{"what":"memory"}') tail /dev/zero ;;
    *) printf fine ;;
esac"#,
    );
    assert_eq!(host.call("f", &json!({"what": ""})).expect(200).body, b"fine");
    assert_eq!(failure(&host, &json!({"what": "exit"}), 502, "function_error", "exit")["exit_code"], 3);
    assert_eq!(failure(&host, &json!({"what": "signal"}), 502, "function_error", "signal")["signal"], 11);
    failure(&host, &json!({"what": "sleep"}), 504, "function_timeout", "timeout");
    failure(&host, &json!({"what": "memory"}), 502, "function_oom", "oom");
    host.finish();
}
