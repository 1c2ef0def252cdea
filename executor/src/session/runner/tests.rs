//! A runner played by the test, on the other ends of its socket and pipes.

use super::*;
use crate::host::socket::Socket;
use crate::session::answer::{Answer, Answered};
use crate::session::greeting::{Greeted, Greeting};
use crate::session::output::tests::{Kept, pipe};
use std::io::Write;

use bytes::{Bytes, BytesMut};
use runlet_runtimes::frame::{Decoder, Kind, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const MAX: usize = 30_000_000;

/// The runner's side of everything.
struct Inside {
    channel: UnixStream,
    decoder: Decoder,
    stdout: std::fs::File,
    stderr: std::fs::File,
    end: oneshot::Sender<ProcessEnd>,
}

fn set_up() -> (Runner, Inside) {
    let (channel, inner) = Socket::pair().unwrap();
    let inner = std::os::unix::net::UnixStream::from(inner);
    inner.set_nonblocking(true).unwrap();
    let inner = UnixStream::from_std(inner).unwrap();
    let ((stdout, out), (stderr, err)) = (pipe(), pipe());
    let (tell, end) = oneshot::channel();
    let process = Process { stdin: None, stdout, stderr, channel: Some(channel), end, number: 1 };
    let inside = Inside { channel: inner, decoder: Decoder::new(), stdout: out, stderr: err, end: tell };
    (Runner::new(process).expect("it has a channel"), inside)
}

impl Inside {
    async fn hear(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.decoder.next().expect("the host keeps the rules") {
                return frame;
            }
            assert_ne!(self.channel.read_buf(self.decoder.buffer_mut()).await.unwrap(), 0, "the host is gone");
        }
    }

    async fn say(&mut self, frames: &[Frame]) {
        let mut out = BytesMut::new();
        for frame in frames {
            encode(frame, &mut out).expect("it is small");
        }
        self.channel.write_all(&out).await.unwrap();
    }
}

fn frame(kind: Kind, end: bool, call: u64, body: &'static [u8]) -> Frame {
    Frame { kind, end, call, body: Bytes::from_static(body) }
}

fn small_result() -> [Frame; 2] {
    [frame(Kind::Result, false, 1, b"{}"), frame(Kind::Data, true, 1, b"42")]
}

async fn call(runner: &mut Runner, sink: &mut Kept) -> Result<Answered, Halt> {
    let mut answer = Answer::new(1, MAX);
    let answered = runner.converse(|frame, _, spout| answer.hear(frame, spout), sink, &mut Spout::closed()).await;
    runner.output.drain(sink).await;
    answered
}

fn body(answered: Result<Answered, Halt>) -> Bytes {
    match answered {
        Ok(Answered::Result { body, .. }) => body,
        other => panic!("no result but {other:?}"),
    }
}

#[tokio::test]
async fn the_greeting_goes_both_ways() {
    let (mut runner, mut inside) = set_up();
    let init = serde_json::json!({"handler": "main.handle"});
    let mut greeting = Greeting::new(&init);
    let mut kept = Kept::default();
    let mut closed = Spout::closed();
    let host = runner.converse(|frame, channel, _| greeting.hear(&frame, channel), &mut kept, &mut closed);
    let code = async {
        inside.say(&[frame(Kind::Hello, false, 0, br#"{"versions":[1,2],"features":[],"runtime":"x"}"#)]).await;
        assert_eq!(inside.hear().await, frame(Kind::Welcome, false, 0, br#"{"version":1}"#));
        assert_eq!(inside.hear().await, frame(Kind::Init, false, 0, br#"{"handler":"main.handle"}"#));
        inside.say(&[frame(Kind::Ready, false, 0, b"{}")]).await;
    };
    let (greeted, ()) = tokio::join!(host, code);
    assert_eq!(greeted.unwrap(), Greeted::Ready);
    assert!(runner.is_usable());
}

#[tokio::test]
async fn a_runner_of_another_version_is_refused() {
    let (mut runner, mut inside) = set_up();
    inside.say(&[frame(Kind::Hello, false, 0, br#"{"versions":[2]}"#)]).await;
    let init = serde_json::Value::Null;
    let mut greeting = Greeting::new(&init);
    let hear = |frame: Frame, channel: &mut Channel, _: &mut Spout| greeting.hear(&frame, channel);
    let halt = runner.converse(hear, &mut Kept::default(), &mut Spout::closed()).await;
    assert!(matches!(halt, Err(Halt::Broke(Breach::Version(versions))) if versions == [2]));
}

#[tokio::test]
async fn a_large_event_and_a_large_result_cross_while_output_flows() {
    let (mut runner, mut inside) = set_up();
    let event = Bytes::from(vec![b'e'; 25 << 20]);
    runner.channel.say(Kind::Invoke, 1, false, &serde_json::json!({"body": "base64"})).unwrap();
    runner.channel.say_body(1, event.clone());
    let writer = std::thread::spawn({
        let mut stdout = inside.stdout.try_clone().unwrap();
        move || stdout.write_all(&[b'o'; 10_000_000]).unwrap()
    });
    let code = async {
        assert_eq!(inside.hear().await.kind, Kind::Invoke);
        let mut seen = BytesMut::new();
        loop {
            let frame = inside.hear().await;
            assert_eq!((frame.kind, frame.call), (Kind::Data, 1));
            seen.extend_from_slice(&frame.body);
            if frame.end {
                break;
            }
        }
        inside.say(&[frame(Kind::Result, false, 1, b"{}")]).await;
        let mut rest = seen.freeze();
        while !rest.is_empty() {
            let body = rest.split_to(rest.len().min(1 << 20));
            inside.say(&[Frame { kind: Kind::Data, end: rest.is_empty(), call: 1, body }]).await;
        }
    };
    let mut kept = Kept::default();
    let (answered, ()) = tokio::join!(call(&mut runner, &mut kept), code);
    assert!(body(answered) == event, "the result is the event");
    runner.channel.trim();
    assert!(runner.is_usable());
    drop((inside.stdout, inside.stderr));
    runner.output.finish(Duration::from_secs(60), &mut kept).await;
    writer.join().unwrap();
    assert!(kept.stdout == [b'o'; 10_000_000], "and no output is lost");
}

#[tokio::test]
async fn all_output_before_the_result_belongs_to_the_call() {
    let (mut runner, mut inside) = set_up();
    inside.stdout.write_all(b"line without end\0\xff").unwrap();
    inside.stderr.write_all(b"complaint").unwrap();
    inside.say(&small_result()).await;
    let mut kept = Kept::default();
    assert_eq!(body(call(&mut runner, &mut kept).await), "42");
    assert_eq!(kept.stdout, b"line without end\0\xff");
    assert_eq!(kept.stderr, b"complaint");
    assert!(runner.is_usable());
}

#[tokio::test]
async fn closed_pipes_do_not_end_a_call() {
    let (mut runner, mut inside) = set_up();
    (inside.stdout, inside.stderr) =
        (std::fs::File::open("/dev/null").unwrap(), std::fs::File::open("/dev/null").unwrap());
    let mut kept = Kept::default();
    let (answered, ()) = tokio::join!(call(&mut runner, &mut kept), async {
        tokio::task::yield_now().await;
        inside.say(&small_result()).await;
    });
    assert_eq!(body(answered), "42");
}

#[tokio::test]
async fn a_result_that_came_with_the_end_counts_and_an_end_alone_is_told() {
    let (mut runner, mut inside) = set_up();
    inside.say(&small_result()).await;
    inside.end.send(ProcessEnd::Exit(0)).unwrap();
    assert_eq!(body(call(&mut runner, &mut Kept::default()).await), "42");
    assert!(!runner.is_usable());

    let (mut runner, mut inside) = set_up();
    // A frame that was begun does not matter any more.
    inside.channel.write_all(b"\x10\0\0").await.unwrap();
    inside.end.send(ProcessEnd::Signal(9)).unwrap();
    assert!(matches!(call(&mut runner, &mut Kept::default()).await, Err(Halt::Ended(ProcessEnd::Signal(9)))));

    let (mut runner, inside) = set_up();
    drop(inside);
    assert!(matches!(call(&mut runner, &mut Kept::default()).await, Err(Halt::Ended(ProcessEnd::SandboxGone))));
}

#[tokio::test]
async fn hostile_bytes_are_a_breach_at_once() {
    let head = b"\x02\0\0\0\x09\0\0\0\x01\0\0\0\0\0\0\0{}".as_slice();
    let result = [head, b"\x01\0\0\0\x07\x01\0\0\x01\0\0\0\0\0\0\0", b"1"].concat();
    let cases: [(Vec<u8>, &str); 7] = [
        (b"\xff\xff\xff\xff\x09\0\0\0\x01\0\0\0\0\0\0\0".to_vec(), "4294967295 bytes"),
        (b"\x01\0\x10\0\x09\0\0\0\x01\0\0\0\0\0\0\0".to_vec(), "1048577 bytes"),
        (b"\0\0\0\0\x63\0\0\0\x01\0\0\0\0\0\0\0".to_vec(), "unknown kind 99"),
        (b"\0\0\0\0\x07\x01\0\0\x02\0\0\0\0\0\0\0".to_vec(), "call 2 during call 1"),
        ([&result[..], head].concat(), "behind the end"),
        ([&result[..], b"?"].concat(), "behind the end"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n".to_vec(), "the runner sent"),
    ];
    for (bytes, word) in cases {
        let (mut runner, mut inside) = set_up();
        inside.channel.write_all(&bytes).await.unwrap();
        let Err(Halt::Broke(breach)) = call(&mut runner, &mut Kept::default()).await else { panic!("{word} passed") };
        assert!(breach.to_string().contains(word), "{breach} does not say {word}");
    }
}

#[tokio::test]
async fn a_runner_that_dies_or_speaks_while_idle_is_seen() {
    let (mut runner, mut inside) = set_up();
    inside.stdout.write_all(b"chatter").unwrap();
    assert!(runner.is_usable() && runner.is_resting(&mut 0));
    inside.channel.write_all(b"?").await.unwrap();
    assert!(!runner.is_usable() && !runner.is_resting(&mut 0));

    let (mut runner, inside) = set_up();
    inside.end.send(ProcessEnd::Exit(1)).unwrap();
    assert!(!runner.is_usable() && !runner.is_resting(&mut 0));

    let (mut runner, inside) = set_up();
    drop(inside.channel);
    assert!(!runner.is_usable() && !runner.is_resting(&mut 0));
}

#[tokio::test]
async fn an_idle_runner_that_floods_its_output_is_given_up() {
    let (mut runner, inside) = set_up();
    let writer = std::thread::spawn(move || {
        let mut stdout = inside.stdout;
        stdout.write_all(&vec![0; IDLE_OUTPUT]).unwrap();
        (inside.channel, inside.end)
    });
    let mut thrown = 0;
    while runner.is_resting(&mut thrown) {
        tokio::task::yield_now().await;
    }
    let alive = writer.join().unwrap();
    assert!(thrown >= IDLE_OUTPUT && runner.is_usable(), "it did not end by itself");
    drop(alive);
}
