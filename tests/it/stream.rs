//! Results that come in pieces: sent as they are made, cut off when they fail, no faster than they are read.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use super::host::TestHost;
use super::wait::{secs, until};

/// A call whose answer is read as it comes.
struct Live {
    stream: TcpStream,
    seen: Vec<u8>,
}

impl Live {
    fn start(host: &TestHost, name: &str, event: &serde_json::Value) -> Self {
        let mut stream = TcpStream::connect(host.address()).expect("it listens");
        stream.set_read_timeout(Some(secs(30))).expect("a timeout");
        let body = event.to_string();
        let head = format!(
            "POST /v1/functions/{name}/invocations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            host.token(),
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("it reads");
        Self { stream, seen: Vec::new() }
    }

    /// Reads until `text` has come; how long after the start that was is the caller's to measure.
    #[track_caller]
    fn until(&mut self, text: &str) {
        let mut piece = [0; 4096];
        while !self.text().contains(text) {
            let count = self.stream.read(&mut piece).expect("more comes in time");
            assert!(count > 0, "it ended without {text:?}: {}", self.text());
            self.seen.extend(&piece[..count]);
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    /// The rest; whether the answer ended as HTTP says that it does.
    fn ends_cleanly(&mut self) -> bool {
        // A reset instead of an end is no clean end either.
        let _ = self.stream.read_to_end(&mut self.seen);
        self.seen.ends_with(b"0\r\n\r\n")
    }

    fn execution(&self) -> String {
        let text = self.text().to_lowercase();
        let (_, rest) = text.split_once("runlet-execution: ").expect("the head names it");
        rest.split("\r\n").next().unwrap_or_default().to_owned()
    }
}

const PYTHON: &str = r#"
import time

def handle(event, context):
    for n in range(event["count"]):
        yield f"piece {n}\n"
        time.sleep(event["pause"])
    if event.get("fail"):
        raise ValueError("half way")
"#;

const ASYNC: &str = r#"
import asyncio

async def handle(event, context):
    for n in range(event["count"]):
        yield f"piece {n}\n"
        await asyncio.sleep(event["pause"])
    if event.get("fail"):
        raise ValueError("half way")
"#;

const NODE: &str = r#"
exports.handler = async function* (event) {
  for (let n = 0; n < event.count; n += 1) {
    yield `piece ${n}\n`;
    await new Promise((go) => setTimeout(go, event.pause * 1000));
  }
  if (event.fail) throw new RangeError('half way');
};
"#;

fn deploy_all(host: &TestHost) {
    host.python("python", "", PYTHON);
    host.python("async", "", ASYNC);
    host.node("node", "", NODE);
    host.python("shared", "concurrency = 4\n", PYTHON);
    host.node("shared-node", "concurrency = 4\n", NODE);
}

const NAMES: [&str; 5] = ["python", "async", "node", "shared", "shared-node"];

#[test]
fn pieces_reach_the_caller_as_they_are_made_and_the_record_has_them_all() {
    let host = TestHost::start();
    deploy_all(&host);
    for name in NAMES {
        let mut live = Live::start(&host, name, &json!({"count": 3, "pause": 0.7}));
        live.until("piece 0\n");
        let first = Instant::now();
        assert!(!live.text().contains("piece 1"), "{name}: it was held back");
        live.until("piece 2\n");
        assert!(first.elapsed() > Duration::from_millis(900), "{name}: {:?}", first.elapsed());
        assert!(live.ends_cleanly(), "{name}: {}", live.text());
        assert!(live.text().contains("text/plain"), "{name}: {}", live.text());
        let record = host.execution(&live.execution());
        assert_eq!(record["outcome"]["kind"], "ok", "{name}");
        let path = format!("/v1/invocations/{}/result", record["invocation"].as_str().expect("an id"));
        assert_eq!(host.http("GET", &path).send().expect(200).text(), "piece 0\npiece 1\npiece 2\n");
    }
    host.finish();
}

#[test]
fn a_stream_that_fails_is_cut_off_and_on_record_as_failed() {
    let host = TestHost::start();
    deploy_all(&host);
    for name in NAMES {
        let mut live = Live::start(&host, name, &json!({"count": 2, "pause": 0.2, "fail": true}));
        live.until("piece 1\n");
        assert!(!live.ends_cleanly(), "{name}: {}", live.text());
        let record = host.execution(&live.execution());
        assert_eq!(record["outcome"]["kind"], "error", "{name}");
        assert_eq!(record["outcome"]["error"]["message"], "half way", "{name}");
        // The sandbox is as good as before; one that fails before its first piece is a failure like any other.
        let answer = host.call(name, &json!({"count": 0, "pause": 0, "fail": true})).expect(502);
        assert_eq!(host.executed(&answer)["start"], "warm", "{name}");
    }
    host.finish();
}

#[test]
fn a_stream_that_dies_or_takes_too_long_is_cut_off() {
    let host = TestHost::start();
    let code = "import os, time\n\ndef handle(event, context):\n    yield 'one'\n    time.sleep(0.2)\n    \
                if event == 'exit':\n        os._exit(4)\n    time.sleep(60)\n";
    host.python("f", "timeout = \"2s\"\n", code);
    for (event, kind) in [("exit", "exit"), ("sleep", "timeout")] {
        let mut live = Live::start(&host, "f", &json!(event));
        live.until("one");
        assert!(!live.ends_cleanly(), "{event}: {}", live.text());
        assert_eq!(host.execution(&live.execution())["outcome"]["kind"], kind);
    }
    host.traces.wait_no_sandbox(secs(5));
    host.finish();
}

#[test]
fn values_become_lines_of_json_and_bytes_stay_bytes() {
    let host = TestHost::start();
    let code = "def handle(event, context):\n    \
                if event == 'bytes':\n        return iter([b'\\x00\\xff', bytearray(b'\\x01')])\n    \
                if event == 'none':\n        return iter([])\n    \
                if event == 'mixed':\n        return iter(['text', {}])\n    \
                return iter([{'a': 1}, 'two', None])\n";
    host.python("python", "", code);
    let code = "const { Readable } = require('stream');\nexports.handler = (event) => {\n  \
                if (event === 'bytes') return Readable.from([Buffer.from([0, 255]), Buffer.from([1])]);\n  \
                if (event === 'none') return (function* () {})();\n  \
                if (event === 'mixed') return (function* () { yield 'text'; yield {}; })();\n  \
                return (function* () { yield { a: 1 }; yield 'two'; yield null; })();\n};\n";
    host.node("node", "", code);
    for name in ["python", "node"] {
        let lines = host.call(name, &json!("lines")).expect(200);
        assert_eq!(
            (lines.header("Content-Type"), lines.text().as_str()),
            (Some("application/x-ndjson"), "{\"a\":1}\n\"two\"\nnull\n")
        );
        let bytes = host.call(name, &json!("bytes")).expect(200);
        assert_eq!(
            (bytes.header("Content-Type"), &bytes.body[..]),
            (Some("application/octet-stream"), &b"\x00\xff\x01"[..])
        );
        assert_eq!(host.call(name, &json!("none")).expect(200).body, b"");
        let mut mixed = Live::start(&host, name, &json!("mixed"));
        assert!(!mixed.ends_cleanly());
    }
    host.finish();
}

/// A function that would send for ever, to one who does not read.
#[test]
fn a_slow_reader_slows_the_function_and_costs_little_memory() {
    let host = TestHost::builder().set("max_result", "\"64MiB\"").start();
    let code = "import time\n\ndef handle(event, context):\n    for n in range(60):\n        yield b'x' * (1 << 20)\n        print(n)\n";
    host.python("f", "timeout = \"5s\"\n", code);
    let mut live = Live::start(&host, "f", &json!(null));
    live.until("xxxx");
    let id = live.execution();
    // It stands still long before it has made all, and the deadline holds.
    until("the deadline ends it", secs(20), || host.execution(&id)["state"] == "failed");
    assert_eq!(host.execution(&id)["outcome"]["kind"], "timeout");
    let made = host.logs(&id, "stdout").split(|byte| *byte == b'\n').count();
    assert!(made < 40, "{made} of 60 pieces were made though nobody read them");
    assert!(!live.ends_cleanly());
    host.finish();
}

#[test]
fn a_reader_who_leaves_ends_nothing() {
    let host = TestHost::start();
    host.python("f", "", PYTHON);
    let mut live = Live::start(&host, "f", &json!({"count": 20, "pause": 0.05}));
    live.until("piece 0");
    let id = live.execution();
    drop(live);
    until("it goes on to its end", secs(20), || host.execution(&id)["state"] == "succeeded");
    host.finish();
}

#[test]
fn a_result_over_the_limit_is_cut_off() {
    let host = TestHost::builder().set("max_result", "\"1MiB\"").start();
    let code = "import time\n\ndef handle(event, context):\n    for n in range(20):\n        yield b'x' * 100_000\n        time.sleep(0.02)\n";
    host.python("f", "", code);
    let mut live = Live::start(&host, "f", &json!(null));
    live.until("xxxx");
    assert!(!live.ends_cleanly());
    assert_eq!(host.execution(&live.execution())["outcome"]["kind"], "runtime_error");
    host.finish();
}
