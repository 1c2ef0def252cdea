//! The host's end of fd 3, as plain blocking code.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use runlet_runtimes::frame::{Decoder, Frame, Kind, MAX_FRAME, encode};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A runner that is being talked to.
pub(crate) struct Runner {
    socket: UnixStream,
    decoder: Decoder,
    child: Child,
    calls: u64,
    _code: TempDir,
}

/// What a call came to.
#[derive(Debug)]
pub(crate) enum Answer {
    Result {
        content_type: String,
        body: Bytes,
        frames: usize,
    },
    Error {
        kind: String,
        message: String,
        trace: Vec<String>,
    },
    /// The runner closed its end.
    Gone,
}

impl Answer {
    pub(crate) fn json(self) -> Value {
        match self {
            Self::Result { content_type, body, .. } => {
                assert_eq!(content_type, "application/json");
                serde_json::from_slice(&body).expect("the runner sends JSON")
            }
            other => panic!("no result: {other:?}"),
        }
    }

    pub(crate) fn error(self) -> (String, String, Vec<String>) {
        match self {
            Self::Error { kind, message, trace } => (kind, message, trace),
            other => panic!("no error: {other:?}"),
        }
    }
}

fn error_of(body: &[u8]) -> Answer {
    let value: Value = serde_json::from_slice(body).expect("an error frame is JSON");
    let text = |key: &str| value[key].as_str().expect("it is a string").to_owned();
    let trace = value["trace"].as_array().expect("it is a list");
    let trace = trace.iter().map(|line| line.as_str().expect("it is a line").to_owned()).collect();
    Answer::Error { kind: text("type"), message: text("message"), trace }
}

impl Runner {
    /// Starts the runner as the sandbox does and sends it `init` for `handler` in a directory with `files`.
    pub(crate) fn start(files: &[(&str, &str)], handler: &str, env: Value) -> Self {
        let code = tempfile::tempdir().expect("a temporary directory");
        for (name, text) in files {
            let path = code.path().join(name);
            std::fs::create_dir_all(path.parent().expect("it is below the directory")).expect("it is made");
            std::fs::write(path, text).expect("it is written");
        }
        let (socket, theirs) = UnixStream::pair().expect("a socket pair");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        // std cannot place a descriptor at 3: a shell moves it there.
        let mut child = Command::new("/bin/sh")
            .args(["-c", "exec /usr/bin/python3 -I -B \"$1\" 3<&0 </dev/null", "sh"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/python/runner.py"))
            .current_dir(code.path())
            .env_clear()
            .envs([("PATH", "/usr/bin:/bin"), ("HOME", "/tmp"), ("LANG", "C.UTF-8")])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("python3 is installed");
        assert!(child.try_wait().expect("it is ours").is_none());
        let mut runner = Self { socket, decoder: Decoder::new(), child, calls: 0, _code: code };
        let hello = runner.receive().expect("a hello");
        assert_eq!((hello.kind, hello.call), (Kind::Hello, 0));
        let hello: Value = serde_json::from_slice(&hello.body).expect("it is JSON");
        assert_eq!(hello["versions"], json!([1]));
        assert!(hello["runtime"].as_str().is_some_and(|text| text.starts_with("python 3.")));
        runner.tell(Kind::Welcome, &json!({"version": 1}));
        let limits = json!({"memory": 134_217_728, "tmp": 16_777_216, "timeout_ms": 10_000});
        let directory = runner._code.path().to_str().expect("it is UTF-8").to_owned();
        runner.tell(Kind::Init, &json!({"handler": handler, "code": directory, "env": env, "limits": limits}));
        runner
    }

    /// A runner that has loaded `main.handle` of `text`.
    pub(crate) fn ready(text: &str) -> Self {
        let mut runner = Self::start(&[("main.py", text)], "main.handle", json!({}));
        runner.expect_ready();
        runner
    }

    pub(crate) fn expect_ready(&mut self) {
        let ready = self.receive().expect("ready");
        assert_eq!((ready.kind, &ready.body[..]), (Kind::Ready, &b"{}"[..]), "{:?}", ready.body);
    }

    pub(crate) fn expect_init_error(&mut self) -> Answer {
        let frame = self.receive().expect("an init_error");
        assert_eq!(frame.kind, Kind::InitError);
        error_of(&frame.body)
    }

    /// Takes the output away while the runner runs, as the host does: a full pipe would stop it.
    pub(crate) fn collect_output(&mut self) -> impl FnOnce() -> Output + use<> {
        fn drain(pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
            let mut pipe = pipe;
            std::thread::spawn(move || {
                let mut all = Vec::new();
                pipe.read_to_end(&mut all).expect("it is a pipe");
                all
            })
        }
        let stdout = drain(self.child.stdout.take().expect("it is a pipe"));
        let stderr = drain(self.child.stderr.take().expect("it is a pipe"));
        move || Output {
            status: std::process::ExitStatus::default(),
            stdout: stdout.join().expect("the reader ends"),
            stderr: stderr.join().expect("the reader ends"),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the runner reads");
    }

    fn tell(&mut self, kind: Kind, body: &Value) {
        self.send_frames(&[Frame { kind, end: false, call: 0, body: body.to_string().into() }]);
    }

    pub(crate) fn send_frames(&mut self, frames: &[Frame]) {
        let mut out = BytesMut::new();
        for frame in frames {
            encode(frame, &mut out).expect("it is small");
        }
        self.send(&out);
    }

    /// The next frame; `None` when the runner has closed its end.
    pub(crate) fn receive(&mut self) -> Option<Frame> {
        let mut piece = vec![0; 1 << 16];
        loop {
            if let Some(frame) = self.decoder.next().expect("the runner keeps the protocol") {
                return Some(frame);
            }
            let count = self.socket.read(&mut piece).expect("the runner answers in time");
            if count == 0 {
                assert!(self.decoder.is_empty(), "the stream ends amid a frame");
                return None;
            }
            self.decoder.push(&piece[..count]);
        }
    }

    /// Calls with a JSON event.
    pub(crate) fn call(&mut self, event: &Value) -> Answer {
        self.call_with("json", event.to_string().as_bytes())
    }

    pub(crate) fn call_with(&mut self, how: &str, body: &[u8]) -> Answer {
        self.calls += 1;
        let call = self.calls;
        let head = json!({"body": how, "context": {
            "namespace": "default", "function": "f", "revision": "sha256:00", "invocation": "inv_1",
            "execution": format!("exe_{call}"), "attempt": 1, "deadline_ms": 4_102_444_800_000_u64,
            "memory_limit": 134_217_728,
            "cause": {"kind": "webhook", "trigger": "trg_1", "delivery": "dlv_1", "headers": {"x-event": "push"}},
        }});
        let none = how == "none";
        let mut frames = vec![Frame { kind: Kind::Invoke, end: none, call, body: head.to_string().into() }];
        let pieces: Vec<&[u8]> = if body.is_empty() { vec![body] } else { body.chunks(MAX_FRAME).collect() };
        let last = pieces.len() - 1;
        if !none {
            frames.extend(pieces.into_iter().enumerate().map(|(at, piece)| Frame {
                kind: Kind::Data,
                end: at == last,
                call,
                body: Bytes::copy_from_slice(piece),
            }));
        }
        self.send_frames(&frames);
        self.answer(call)
    }

    fn answer(&mut self, call: u64) -> Answer {
        let Some(first) = self.receive() else { return Answer::Gone };
        assert_eq!(first.call, call);
        match first.kind {
            Kind::Error => {
                assert!(first.end);
                error_of(&first.body)
            }
            Kind::Result => {
                let head: Value = serde_json::from_slice(&first.body).expect("it is JSON");
                let content_type = head["content_type"].as_str().expect("it is a string").to_owned();
                let (mut body, mut frames, mut end) = (BytesMut::new(), 0, first.end);
                while !end {
                    let piece = self.receive().expect("the rest of the result");
                    assert_eq!((piece.kind, piece.call), (Kind::Data, call));
                    body.extend_from_slice(&piece.body);
                    (frames, end) = (frames + 1, piece.end);
                }
                Answer::Result { content_type, body: body.freeze(), frames }
            }
            other => panic!("{other:?} is no answer"),
        }
    }

    /// The status that the process ends with.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().expect("it is ours").code()
    }

    pub(crate) fn bye(&mut self) -> Option<i32> {
        self.tell(Kind::Bye, &json!({}));
        assert!(self.receive().is_none());
        self.exit_code()
    }

    /// Closes the host's end without a word.
    pub(crate) fn hang_up(&mut self) {
        self.socket.shutdown(std::net::Shutdown::Both).expect("it is open");
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
