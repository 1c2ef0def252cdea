//! A process in a leased sandbox, and whoever follows it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use runlet_core::engine::{Command, ExecEvent, Stream};
use runlet_core::outcome::{Outcome, OutcomeKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::host::sandbox::{EndCause, Process, ProcessEnd, ProcessSpec, Sandbox};

/// The environment that a command's own goes on top of.
const DEFAULT_ENV: [(&str, &str); 3] =
    [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", "/tmp"), ("LANG", "C.UTF-8")];

/// How much is read from a pipe at a time.
const PIECE: usize = 64 << 10;

/// How long to wait for the output of processes that outlive the one that was started.
const STRAGGLERS: Duration = Duration::from_millis(100);

/// How long the end of a sandbox may take to become known.
const END_PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn spec(command: &Command) -> ProcessSpec {
    let mut env: std::collections::BTreeMap<_, _> =
        DEFAULT_ENV.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    env.extend(command.env.clone());
    ProcessSpec {
        argv: command.argv.clone(),
        env,
        cwd: command.cwd.clone(),
        stdin: !command.stdin.is_empty(),
        channel: false,
        files: Vec::new(),
    }
}

/// Feeds a process, and tells of its output and, last, of its end.
pub(super) async fn follow(process: Process, sandbox: Arc<Sandbox>, stdin: Bytes, events: mpsc::Sender<ExecEvent>) {
    let Process { stdin: pipe, stdout, stderr, mut end, .. } = process;
    let feed = async {
        if let Some(mut pipe) = pipe {
            // A program need not read all of it.
            let _ = pipe.write_all(&stdin).await;
        }
    };
    let output = async { tokio::join!(pump(stdout, Stream::Stdout, &events), pump(stderr, Stream::Stderr, &events)) };
    let ended = {
        let mut output = pin!(output);
        let mut feed = pin!(feed);
        let (mut fed, mut heard) = (false, false);
        let ended = loop {
            tokio::select! {
                ended = &mut end => break ended,
                () = &mut feed, if !fed => fed = true,
                _ = &mut output, if !heard => heard = true,
            }
        };
        if !heard {
            // Others may hold the pipes; what they write later is nobody's.
            let _ = timeout(STRAGGLERS, &mut output).await;
        }
        ended
    };
    let outcome = outcome(ended.unwrap_or(ProcessEnd::SandboxGone), &sandbox).await;
    let _ = events.send(ExecEvent::Exited(outcome)).await;
}

/// Carries a stream to its end. When nobody follows it any more, it is read all the same, so that the process goes on.
async fn pump(mut pipe: pipe::Receiver, stream: Stream, events: &mpsc::Sender<ExecEvent>) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIECE);
        match pipe.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => drop(events.send(ExecEvent::Output(stream, buffer.split().freeze())).await),
        }
    }
}

async fn outcome(end: ProcessEnd, sandbox: &Sandbox) -> Outcome {
    match end {
        ProcessEnd::Exit(0) => Outcome { exit_code: Some(0), ..Outcome::ok() },
        ProcessEnd::Exit(code) => Outcome::exit(code),
        ProcessEnd::Signal(signal) if signal == libc::SIGKILL && sandbox.oom_killed().await => {
            Outcome::because(OutcomeKind::Oom, "the sandbox used more memory than its limit")
        }
        ProcessEnd::Signal(signal) => Outcome::signal(signal),
        // Why it was ended comes before what had happened in it earlier.
        ProcessEnd::SandboxGone => match sandbox.gone(END_PATIENCE).await {
            Some(end) if end.cause == EndCause::Killed => {
                Outcome::because(OutcomeKind::Cancelled, "the lease was released")
            }
            Some(end) if end.cause == EndCause::Deadline => {
                Outcome::because(OutcomeKind::Timeout, "the lease ended: renew it in time")
            }
            Some(end) if end.oom => Outcome::because(OutcomeKind::Oom, "the sandbox used more memory than its limit"),
            _ => Outcome::because(OutcomeKind::Lost, "the sandbox went away"),
        },
    }
}
