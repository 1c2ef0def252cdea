//! One process per call: the event on its stdin, the result on its stdout.

use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use runlet_core::engine::Stream;
use runlet_core::outcome::Outcome;
use tokio::net::unix::pipe::Sender;
use tokio_util::sync::CancellationToken;

use super::answer::Breach;
use super::output::Output;
use super::runner::{End, Halt};
use super::supervise::{Push, supervise};
use super::{Invoked, OutputSink, content_type, verdict};
use crate::host::sandbox::{Process, ProcessEnd, ProcessSpec, Sandbox, SandboxError};

/// How long to wait for the output of processes that outlive the one that was started.
const STRAGGLERS: Duration = Duration::from_millis(100);

/// How long the pipes of a sandbox that was killed may stay open.
const PIPE_PATIENCE: Duration = Duration::from_secs(5);

/// Runs a program in `sandbox` with `body` on its stdin. What it writes goes to `sink`; what it writes to stdout is also
/// the result: JSON if it is an object or an array, else text if it is UTF-8, else bytes.
///
/// The sandbox's deadline is set to `deadline` and stays. The sandbox is told to end when the call is cancelled, overdue
/// or too talkative; otherwise it is left as it is, and the caller decides whether anything else is run in it.
pub async fn run_once(
    sandbox: &Sandbox,
    process: ProcessSpec,
    body: Bytes,
    deadline: Instant,
    max_result: usize,
    cancel: &CancellationToken,
    sink: &mut impl OutputSink,
) -> Invoked {
    sandbox.arm(Some(deadline));
    let mut tee = Tee { sink, result: BytesMut::new(), max: max_result, over: false };
    let run = async {
        let mut started = Started::new(sandbox.spawn(ProcessSpec { stdin: true, ..process }).await?, body);
        let ended = started.run(&mut tee).await;
        Ok::<_, SandboxError>((started.output, ended))
    };
    let (done, push) = supervise(|| sandbox.kill(), deadline, cancel, run).await;
    let (mut output, ended) = match done {
        Some(Ok(started)) => started,
        Some(Err(error)) => return Invoked::failed(verdict::of_start(sandbox, error, push).await),
        None => return Invoked::failed(verdict::of_push(push.unwrap_or(Push::Overdue))),
    };
    let failure = match ended {
        Ok(ProcessEnd::Exit(0)) => None,
        Ok(end) => Some(verdict::of_halt(sandbox, Halt::Ended(end), deadline, push).await),
        Err(breach) => {
            sandbox.kill();
            Some(verdict::of_halt(sandbox, Halt::Broke(breach), deadline, push).await)
        }
    };
    let patience = if sandbox.ended().is_some() { PIPE_PATIENCE } else { STRAGGLERS };
    output.finish(patience, &mut tee).await;
    match failure {
        Some(outcome) => {
            Invoked { reusable: push.is_none() && !tee.over && sandbox.ended().is_none(), ..Invoked::failed(outcome) }
        }
        None if tee.over => {
            sandbox.kill();
            Invoked::failed(Breach::TooLarge(max_result).outcome())
        }
        None => {
            let (outcome, result) = (Outcome { exit_code: Some(0), ..Outcome::ok() }, tee.result.freeze());
            Invoked { outcome, content_type: kind_of(&result), result, reusable: push.is_none(), unread: false }
        }
    }
}

/// A process under way.
struct Started {
    stdin: Option<Sender>,
    body: Bytes,
    output: Output,
    end: End,
}

enum Turn {
    Ended(ProcessEnd),
    Feed,
    Output,
}

impl Started {
    fn new(process: Process, body: Bytes) -> Self {
        let stdin = process.stdin.filter(|_| !body.is_empty());
        Self { stdin, body, output: Output::new(process.stdout, process.stderr), end: End::new(process.end) }
    }

    /// Feeds it and carries its output until it ends.
    async fn run<S: OutputSink>(&mut self, tee: &mut Tee<'_, S>) -> Result<ProcessEnd, Breach> {
        loop {
            let turn = tokio::select! {
                biased;
                end = self.end.wait() => Turn::Ended(end),
                () = writable(self.stdin.as_ref()), if self.stdin.is_some() => Turn::Feed,
                () = self.output.readable() => Turn::Output,
            };
            match turn {
                Turn::Ended(end) => return Ok(end),
                Turn::Feed => self.feed(),
                Turn::Output => self.output.pump(tee).await,
            }
            if tee.over {
                return Err(Breach::TooLarge(tee.max));
            }
        }
    }

    /// Writes what the pipe takes; closes it behind the last byte, or when nobody reads any more, which is no fault.
    fn feed(&mut self) {
        let Some(stdin) = &self.stdin else { return };
        match stdin.try_write(&self.body) {
            Ok(written) => self.body.advance(written),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
            Err(_) => self.body.clear(),
        }
        if self.body.is_empty() {
            self.stdin = None;
        }
    }
}

async fn writable(stdin: Option<&Sender>) {
    if let Some(stdin) = stdin {
        // An error shows itself when it is written to.
        drop(stdin.writable().await);
    }
}

/// Keeps stdout as the result, besides handing on everything.
struct Tee<'a, S> {
    sink: &'a mut S,
    result: BytesMut,
    max: usize,
    /// Whether stdout is larger than a result may be; nothing of it is kept then.
    over: bool,
}

impl<S: OutputSink> OutputSink for Tee<'_, S> {
    async fn write(&mut self, stream: Stream, bytes: Bytes) {
        if stream == Stream::Stdout && !self.over {
            self.over = self.result.len() + bytes.len() > self.max;
            if self.over {
                self.result = BytesMut::new();
            } else {
                self.result.extend_from_slice(&bytes);
            }
        }
        self.sink.write(stream, bytes).await;
    }
}

fn kind_of(result: &[u8]) -> &'static str {
    let opens_json = result.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| b"{[".contains(byte));
    if opens_json && serde_json::from_slice::<serde::de::IgnoredAny>(result).is_ok() {
        content_type::JSON
    } else if std::str::from_utf8(result).is_ok() {
        content_type::TEXT
    } else {
        content_type::BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::super::output::tests::{Kept, pipe};
    use super::*;
    use std::io::{Read, Write};
    use tokio::sync::oneshot;

    /// Runs `code` as the process would, with its stdin, stdout and stderr; it ends with status 0.
    async fn play<S: OutputSink>(
        body: &[u8],
        tee: &mut Tee<'_, S>,
        code: impl FnOnce(std::io::PipeReader, std::fs::File) + Send + 'static,
    ) -> Result<ProcessEnd, Breach> {
        let (stdin_read, stdin) = std::io::pipe().unwrap();
        let (stdout, out) = pipe();
        let (stderr, _err) = pipe();
        let (tell, end) = oneshot::channel();
        let stdin = sender(stdin);
        let process = Process { stdin: Some(stdin), stdout, stderr, channel: None, end, number: 1 };
        let code = std::thread::spawn(move || {
            code(stdin_read, out);
            tell.send(ProcessEnd::Exit(0)).ok();
        });
        let mut started = Started::new(process, Bytes::copy_from_slice(body));
        let ended = started.run(tee).await;
        if ended.is_ok() {
            code.join().unwrap();
            started.output.finish(PIPE_PATIENCE, tee).await;
        }
        ended
    }

    fn sender(stdin: std::io::PipeWriter) -> Sender {
        Sender::from_owned_fd(stdin.into()).expect("a pipe in the runtime")
    }

    fn tee(sink: &mut Kept, max: usize) -> Tee<'_, Kept> {
        Tee { sink, result: BytesMut::new(), max, over: false }
    }

    #[tokio::test]
    async fn a_filter_gets_and_gives_more_than_pipes_hold() {
        let body: Vec<u8> = (0..25_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let mut kept = Kept::default();
        let mut tee = tee(&mut kept, body.len());
        let ended = play(&body, &mut tee, |mut stdin, mut out| {
            std::io::copy(&mut stdin, &mut out).unwrap();
        });
        assert_eq!(ended.await.unwrap(), ProcessEnd::Exit(0));
        assert!(tee.result == body[..], "the result is what went in");
        assert!(kept.stdout == body, "and so is the output");
    }

    #[tokio::test]
    async fn a_program_that_never_reads_may_end() {
        let mut kept = Kept::default();
        let mut tee = tee(&mut kept, 100);
        let ended = play(&[0; 1_000_000], &mut tee, |stdin, mut out| {
            drop(stdin);
            out.write_all(b"done").unwrap();
        });
        assert_eq!(ended.await.unwrap(), ProcessEnd::Exit(0));
        assert_eq!(&tee.result[..], b"done");
    }

    #[tokio::test]
    async fn a_result_above_the_limit_ends_the_call() {
        let mut kept = Kept::default();
        let mut tee = tee(&mut kept, 1000);
        let ended = play(b"x", &mut tee, |mut stdin, mut out| {
            // Fails when the host has let go.
            while out.write_all(&[b'y'; 4096]).is_ok() {}
            stdin.read_to_end(&mut Vec::new()).ok();
        });
        assert!(matches!(ended.await, Err(Breach::TooLarge(1000))));
        assert!(tee.over && tee.result.is_empty());
        assert!(!kept.stdout.is_empty(), "the output is on record all the same");
    }

    #[test]
    fn results_are_json_text_or_bytes() {
        assert_eq!(kind_of(b" {\"a\": [1]}\n"), content_type::JSON);
        assert_eq!(kind_of(b"{oops"), content_type::TEXT);
        assert_eq!(kind_of(b"12"), content_type::TEXT);
        assert_eq!(kind_of(b""), content_type::TEXT);
        assert_eq!(kind_of(b"\xff"), content_type::BYTES);
    }
}
