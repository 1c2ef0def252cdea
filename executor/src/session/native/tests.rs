//! The words of this side against the real runner of the other.

use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use runlet_runtimes::runner_files;
use serde_json::json;
use serde_json::value::to_raw_value;
use tokio::sync::oneshot;

use super::*;
use crate::host::sandbox::ProcessEnd;
use crate::host::socket::Socket;
use crate::session::channel::Channel;
use crate::session::output::Output;
use crate::session::output::tests::{Kept, pipe};
use crate::session::runner::End;

/// The Python runner of this tree, outside a sandbox, with `code` as its `main.py`.
struct Python {
    runner: Runner,
    process: Child,
    _dir: tempfile::TempDir,
    init: serde_json::Value,
    // Nobody tells the end here: the runner is heard by its channel alone.
    _end: oneshot::Sender<ProcessEnd>,
}

impl Python {
    fn start(code: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("code");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("main.py"), code).unwrap();
        for (name, bytes) in runner_files(runlet_core::manifest::RuntimeKind::Python) {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        let (ours, theirs) = Socket::pair().unwrap();
        let ((stdout, out), (stderr, err)) = (pipe(), pipe());
        // The shell moves the socket from stdin to fd 3.
        let process = Command::new("/bin/sh")
            .args(["-c", "exec 3<&0 0</dev/null /usr/bin/python3 -I -B \"$0\""])
            .arg(dir.path().join("runner.py"))
            .stdin(Stdio::from(theirs))
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap();
        let (tell, end) = oneshot::channel();
        let end = End::new(end);
        let init = json!({"handler": "main.handle", "code": path, "env": {"WHO": "you"}, "limits": {}});
        let channel = Channel::new(ours);
        Self {
            runner: Runner { channel, output: Output::new(stdout, stderr), end },
            process,
            _dir: dir,
            init,
            _end: tell,
        }
    }

    async fn greet(&mut self, kept: &mut Kept) -> Greeted {
        let mut greeting = Greeting::new(&self.init);
        let greeted =
            self.runner.converse(|frame, channel, _| greeting.hear(&frame, channel), kept, &mut Spout::closed()).await;
        self.runner.output.drain(kept).await;
        greeted.expect("the runner keeps the rules")
    }

    async fn call(&mut self, number: u64, body_kind: BodyKind, body: Bytes, kept: &mut Kept) -> Invoked {
        let call =
            Invocation { context: to_raw_value(&json!({"function": "f", "attempt": 1})).unwrap(), body_kind, body };
        let answered = talk(&mut self.runner, number, call, 50_000_000, kept, &mut Spout::closed())
            .await
            .expect("the runner keeps the rules");
        self.runner.output.drain(kept).await;
        invoked(answered, true)
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

const CODE: &str = r#"
import os, sys
print("loaded")
def handle(event, context):
    if event == "raise":
        raise ValueError("no luck")
    print(context.function, os.environ["WHO"])
    sys.stderr.buffer.write(b"raw \xff")
    return event
"#;

#[tokio::test]
async fn the_python_runner_and_we_understand_each_other() {
    let mut python = Python::start(CODE);
    let mut kept = Kept::default();
    assert_eq!(python.greet(&mut kept).await, Greeted::Ready);
    assert_eq!(kept.stdout, b"loaded\n");

    let mut kept = Kept::default();
    let done = python.call(1, BodyKind::Json, Bytes::from_static(b"[1, null]"), &mut kept).await;
    assert_eq!(
        (done.outcome, &done.result[..], done.content_type),
        (Outcome::ok(), &b"[1,null]"[..], "application/json")
    );
    assert_eq!((&kept.stdout[..], &kept.stderr[..]), (&b"f you\n"[..], &b"raw \xff"[..]));

    let raised = python.call(2, BodyKind::Json, Bytes::from_static(b"\"raise\""), &mut kept).await;
    let detail = raised.outcome.error.expect("it raised");
    assert_eq!(
        (raised.outcome.kind, &detail.kind[..], &detail.message[..]),
        (OutcomeKind::Error, "ValueError", "no luck")
    );
    assert!(detail.trace.iter().any(|line| line.contains("main.py")), "{:?}", detail.trace);

    let none = python.call(3, BodyKind::None, Bytes::new(), &mut kept).await;
    assert_eq!(none.result, "null");
    let empty = python.call(4, BodyKind::Base64, Bytes::new(), &mut kept).await;
    assert_eq!(empty.result, "\"\"");
    let large = Bytes::from(vec![0; 20_000_000]);
    let large = python.call(5, BodyKind::Base64, large, &mut kept).await;
    assert_eq!(large.result.len(), 26_666_668 + 2);
    assert!(python.runner.is_usable());
}

/// How often the process has gone to sleep.
fn sleeps(process: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|count| count.trim().parse().ok()).expect("a count")
}

/// A file `select.py` of the code is not what the runner waits by.
#[tokio::test]
async fn a_python_that_waits_is_woken_once_a_call() {
    let mut python = Python::start("def handle(event, context):\n    return event\n");
    std::fs::write(python.init["code"].as_str().unwrap().to_owned() + "/select.py", "raise SystemExit(1)").unwrap();
    let mut kept = Kept::default();
    assert_eq!(python.greet(&mut kept).await, Greeted::Ready);
    let mut calls = 0;
    let mut call = async |python: &mut Python, count| {
        for _ in 0..count {
            calls += 1;
            let done = python.call(calls, BodyKind::Json, Bytes::from_static(b"[1]"), &mut kept).await;
            assert_eq!(done.result, "[1]");
        }
    };
    call(&mut python, 10).await;
    let before = sleeps(&python.process);
    call(&mut python, 200).await;
    let slept = sleeps(&python.process) - before;
    assert!(slept <= 250, "{slept} times for 200 calls");
}

#[tokio::test]
async fn code_that_cannot_be_loaded_is_told_with_its_reason() {
    let mut python = Python::start("print('half')\nimport nowhere_to_be_found");
    let mut kept = Kept::default();
    let Greeted::InitError(detail) = python.greet(&mut kept).await else { panic!("it loaded") };
    assert_eq!(detail.kind, "ModuleNotFoundError");
    assert_eq!(kept.stdout, b"half\n");
}
