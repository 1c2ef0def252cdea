//! Node: what python can do, it can, in Node's own words.

use std::time::Instant;

use serde_json::{Value, json};

use super::calls::execution_id;
use super::host::TestHost;
use super::outcomes::failure;
use super::wait::secs;

const CODE: &str = r#"
const fs = require('fs');

function deeper(text) {
  throw new RangeError(text);
}

exports.handler = async (event, context) => {
  switch (event && event.what) {
    case 'throw': return deeper('bad \u0000 thing\nsecond line');
    case 'string': throw 'just text';
    case 'reject': Promise.reject(new TypeError('nobody listens')); return new Promise(() => {});
    case 'later': setTimeout(() => { throw new Error('out of nowhere'); }, 0); return new Promise(() => {});
    case 'exit': return process.exit(3);
    case 'signal': return process.kill(process.pid, event.kill ? 'SIGKILL' : 'SIGSEGV') && new Promise(() => {});
    case 'memory': { const all = []; for (;;) all.push(Buffer.alloc(1 << 20, 1)); }
    case 'heap': { const all = []; for (;;) all.push({ all: all.length, text: `${all.length}` }); }
    case 'sleep': return new Promise(() => setTimeout(() => {}, 3600e3));
    case 'spin': for (;;);
    case 'circle': { const circle = {}; circle.circle = circle; return circle; }
    case 'function': return () => 1;
    case 'big': return 'x'.repeat(event.size);
    case 'garbage': fs.writeSync(3, Buffer.alloc(64, 255)); return new Promise(() => {});
    case 'context': return { ...context, env: process.env.GREETING, left: context.remaining_ms() > 0 };
    case 'buffer': return Buffer.from([0, 1, 254, 255]);
    case 'nothing': return undefined;
    default: return event;
  }
};
"#;

/// A failure that costs the sandbox nothing.
#[test]
fn an_exception_comes_with_type_message_and_stack() {
    let host = TestHost::start();
    host.node("f", "", CODE);
    let outcome = failure(&host, &json!({"what": "throw"}), 502, "function_error", "error");
    assert_eq!(outcome["error"]["type"], "RangeError");
    let message = outcome["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("bad") && message.contains("thing"), "{message:?}");
    let trace = outcome["error"]["trace"].to_string();
    assert!(trace.contains("deeper") && trace.contains("/var/task/main.js"), "{trace}");
    assert!(!trace.contains("/run/runlet") && !trace.contains("node:"), "{trace}");
    let outcome = failure(&host, &json!({"what": "string"}), 502, "function_error", "error");
    assert_eq!((&outcome["error"]["type"], &outcome["error"]["message"]), (&json!("string"), &json!("just text")));
    assert_eq!(host.executed(&host.call("f", &json!(1)).expect(200))["start"], "warm");
    host.finish();
}

#[test]
fn what_no_call_can_catch_ends_the_call_and_the_sandbox() {
    let host = TestHost::start();
    host.node("f", "", CODE);
    for (what, kind, message) in [("reject", "TypeError", "nobody listens"), ("later", "Error", "out of nowhere")] {
        let outcome = failure(&host, &json!({ "what": what }), 502, "function_error", "error");
        assert_eq!((&outcome["error"]["type"], &outcome["error"]["message"]), (&json!(kind), &json!(message)));
        assert!(outcome["error"]["trace"].to_string().contains("main.js"), "{outcome}");
        assert_eq!(host.executed(&host.call("f", &json!(1)).expect(200))["start"], "cold", "{what}");
    }
    host.finish();
}

#[test]
fn exits_signals_memory_and_time_are_told_apart() {
    let host = TestHost::start();
    host.node("f", "timeout = \"3s\"\nmemory = \"96MiB\"\n", CODE);
    assert_eq!(failure(&host, &json!({"what": "exit"}), 502, "function_error", "exit")["exit_code"], 3);
    assert_eq!(failure(&host, &json!({"what": "signal"}), 502, "function_error", "signal")["signal"], 11);
    assert_eq!(failure(&host, &json!({"what": "signal", "kill": true}), 502, "function_error", "signal")["signal"], 9);
    for what in ["memory", "heap"] {
        failure(&host, &json!({ "what": what }), 502, "function_oom", "oom");
    }
    for what in ["sleep", "spin"] {
        let start = Instant::now();
        failure(&host, &json!({ "what": what }), 504, "function_timeout", "timeout");
        assert!(start.elapsed() >= secs(3) && start.elapsed() < secs(6), "{what}: {:?}", start.elapsed());
    }
    failure(&host, &json!({"what": "garbage"}), 502, "runtime_error", "runtime_error");
    host.traces.wait_no_sandbox(secs(5));
    host.call("f", &json!(1)).expect(200);
    host.finish();
}

#[test]
fn results_are_json_or_bytes_and_all_else_is_the_functions_error() {
    let host = TestHost::builder().set("max_result", "\"1MiB\"").start();
    host.node("f", "[env]\nGREETING = \"hi\"\n", CODE);
    for event in [json!({"a": [1, 2.5, "é \u{1F600}"]}), json!("text"), json!(false), json!(null)] {
        assert_eq!(host.value("f", &event), event);
    }
    assert_eq!(host.value("f", &json!({"what": "nothing"})), Value::Null);
    let bytes = host.call("f", &json!({"what": "buffer"})).expect(200);
    assert_eq!(
        (bytes.header("Content-Type"), &bytes.body[..]),
        (Some("application/octet-stream"), &[0, 1, 254, 255][..])
    );
    let raw = host.call_request("f").header("Content-Type", "application/octet-stream").body(*b"\x00\xff").send();
    assert_eq!(raw.expect(200).text(), "\"AP8=\"");
    for what in ["circle", "function"] {
        let outcome = failure(&host, &json!({ "what": what }), 502, "function_error", "error");
        assert!(outcome["error"]["message"].as_str().is_some_and(|text| text.contains("is not JSON")), "{outcome}");
    }
    failure(&host, &json!({"what": "big", "size": 2 << 20}), 502, "runtime_error", "runtime_error");
    assert_eq!(host.call("f", &json!({"what": "big", "size": 900_000})).expect(200).body.len(), 900_002);
    let answer = host.call("f", &json!({"what": "context"})).expect(200);
    let (context, record) = (answer.json(), host.executed(&answer));
    assert_eq!((&context["env"], &context["left"]), (&json!("hi"), &json!(true)));
    assert_eq!((&context["execution"], &context["attempt"]), (&record["id"], &json!(1)));
    assert_eq!((&context["cause"]["kind"], &context["memory_limit"]), (&json!("http"), &json!(128 << 20)));
    host.finish();
}

#[test]
fn modules_of_both_kinds_are_found_by_file_and_export() {
    let host = TestHost::start();
    let manifest = |handler: &str| format!("schema = 1\nname = \"f\"\nruntime = \"node\"\nhandler = \"{handler}\"\n");
    let said = |host: &TestHost, handler: &str, files: &[(&str, &str)]| {
        let manifest = manifest(handler);
        let all: Vec<(&str, &str)> =
            [("function.toml", manifest.as_str())].into_iter().chain(files.iter().copied()).collect();
        host.deploy(&all);
        host.value("f", &json!(null))
    };
    let esm = "import { other } from './lib/other.mjs';\nawait null;\nexport const handler = async () => other;\n";
    let other = ("lib/other.mjs", "export const other = 'esm';\n");
    assert_eq!(said(&host, "main.handler", &[("main.mjs", esm), other]), "esm");
    let package = ("package.json", "{\"type\": \"module\"}");
    assert_eq!(
        said(&host, "src/main.handler", &[("src/main.js", &esm.replace("./lib", "../lib")), other, package]),
        "esm"
    );
    assert_eq!(said(&host, "main.default", &[("main.mjs", "export default () => 'default';\n")]), "default");
    assert_eq!(said(&host, "main.handler", &[("main.cjs", "exports.handler = () => 'cjs';\n"), package]), "cjs");
    let needs = "exports.handler = () => require('dep')();\n";
    let dep = ("node_modules/dep/index.js", "module.exports = () => 'dep';\n");
    assert_eq!(said(&host, "main.handler", &[("main.js", needs), dep]), "dep");
    for (code, kind, part) in [
        ("exports.handler = (\n", "SyntaxError", ""),
        ("require('nowhere');\n", "Error", "nowhere"),
        ("exports.other = () => 1;\n", "TypeError", "no export `handler`; it exports other"),
        ("exports.handler = 3;\n", "TypeError", "is a number, not a function"),
        ("throw new RangeError('early');\n", "RangeError", "early"),
    ] {
        host.node("f", "", code);
        let outcome = failure(&host, &json!(null), 502, "runtime_error", "init_error");
        assert_eq!(outcome["error"]["type"], kind, "{outcome}");
        assert!(outcome["error"]["message"].as_str().is_some_and(|text| text.contains(part)), "{outcome}");
    }
    host.finish();
}

#[test]
fn output_is_bytes_and_belongs_to_its_call() {
    let host = TestHost::start();
    let code = "exports.handler = (event) => {\n  \
                console.log('call', event.n);\n  console.error('err', event.n);\n  \
                if (event.big) process.stdout.write('x'.repeat(10 << 20));\n  \
                if (event.raw) process.stderr.write(Buffer.from([0, 255, 254, 128]));\n  \
                require('child_process').spawnSync('echo', ['child'], { stdio: 'inherit' });\n  return 1;\n};\n";
    host.node("f", "", code);
    for n in 0..5 {
        let id = execution_id(&host.call("f", &json!({ "n": n })).expect(200));
        assert_eq!(host.logs(&id, "stdout"), format!("call {n}\nchild\n").as_bytes());
        assert_eq!(host.logs(&id, "stderr"), format!("err {n}\n").as_bytes());
    }
    let id = execution_id(&host.call("f", &json!({"n": 9, "big": true, "raw": true})).expect(200));
    assert_eq!(host.logs(&id, "stdout").len(), 7 + (10 << 20) + 6);
    assert_eq!(host.logs(&id, "stderr"), b"err 9\n\x00\xff\xfe\x80");
    host.finish();
}

#[test]
fn the_second_call_finds_the_first_ones_process() {
    let host = TestHost::start();
    let code = "let calls = 0;\nexports.handler = () => ++calls;\n";
    host.node("f", "", code);
    let (first, second) = (host.call("f", &json!(null)).expect(200), host.call("f", &json!(null)).expect(200));
    assert_eq!((first.text().as_str(), second.text().as_str()), ("1", "2"));
    assert_eq!(host.executed(&first)["sandbox"], host.executed(&second)["sandbox"]);
    host.node("f", "reset = \"fresh\"\n", code);
    for _ in 0..2 {
        let answer = host.call("f", &json!(null)).expect(200);
        assert_eq!(answer.text(), "1");
        let record = host.executed(&answer);
        assert_eq!(record["remains"], json!({"processes": 0, "cgroups": 0, "mounts": 0, "netns": 0}));
        assert!(record["usage"]["memory_peak"].as_i64().is_some_and(|peak| peak > 1 << 20), "{record}");
    }
    host.finish();
}

#[test]
fn a_node_function_runs_in_the_least_memory_that_is_accepted() {
    let host = TestHost::start();
    host.node("f", "memory = \"33MiB\"\ntmp = \"1MiB\"\n", "exports.handler = (event) => event;\n");
    for n in 0..3 {
        assert_eq!(host.value("f", &json!(n)), n);
    }
    host.finish();
}
