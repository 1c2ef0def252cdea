//! A process in a leased sandbox: what goes in, what comes out, and how it ends.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use nix::libc::{SIGKILL, SIGTERM};
use runlet_core::engine::{Command, ExecInput};
use runlet_core::outcome::{Outcome, OutcomeKind};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Held, Why};
use crate::host::sandbox::{EndCause, Process, ProcessEnd, ProcessSpec};
use crate::session::{Output, OutputSink};

/// The environment that everything else goes on top of.
const DEFAULT_ENV: [(&str, &str); 3] =
    [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", "/tmp"), ("LANG", "C.UTF-8")];

/// How long to wait for the output of processes that outlive the one that was started.
const STRAGGLERS: Duration = Duration::from_millis(100);

/// How long the end of a sandbox may take to become known.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// How long everything may take to die of SIGKILL before the whole sandbox is killed.
const AFTER_KILL: Duration = Duration::from_secs(5);

/// The status by which a shell tells that its command was killed.
const KILLED_COMMAND: i32 = 128 + SIGKILL;

/// What is said to a process, and how much of that it has taken.
#[derive(Debug)]
pub(crate) struct Talk {
    /// From its client.
    pub(crate) input: mpsc::Receiver<ExecInput>,
    /// Bytes of stdin that the process has taken.
    pub(crate) taken: watch::Sender<u64>,
    /// Most bytes of stdin that may wait here.
    pub(crate) window: usize,
    /// From SIGTERM to SIGKILL.
    pub(crate) grace: Duration,
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Followed {
    /// The word for it.
    pub(crate) outcome: Outcome,
    /// Whether its sandbox ended with it.
    pub(crate) gone: bool,
}

/// The process that a command asks for, in the environment of its lease.
pub(crate) fn spec(command: Command, held: &Held, facts: BTreeMap<String, String>) -> ProcessSpec {
    let Command { argv, env, cwd, stdin, files, .. } = command;
    let mut all: BTreeMap<_, _> =
        DEFAULT_ENV.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    all.extend(held.terms().env.clone());
    all.extend(facts);
    all.extend(env);
    let cwd = cwd.unwrap_or_else(|| held.terms().cwd.clone());
    ProcessSpec { argv, env: all, cwd, stdin, channel: false, files }
}

/// Talks to a process until it has ended and its output is carried to `sink`.
pub(crate) async fn follow(process: Process, held: &Arc<Held>, talk: Talk, sink: &mut impl OutputSink) -> Followed {
    let Process { stdin, stdout, stderr, mut end, number, .. } = process;
    let mut output = Output::new(stdout, stderr);
    let mut control = Control::new(held, number, stdin, talk);
    let stop = CancellationToken::new();
    let ended = {
        let mut steer = std::pin::pin!(control.run());
        // Two futures side by side: a client that does not read its output must still be able to cancel.
        let mut carry = std::pin::pin!(async {
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = output.readable() => {}
                }
                output.pump(sink).await;
            }
        });
        let ended = tokio::select! {
            ended = &mut end => ended.unwrap_or(ProcessEnd::SandboxGone),
            never = &mut steer => match never {},
            () = &mut carry => ProcessEnd::SandboxGone,
        };
        // What was read is handed on before anything else is done.
        stop.cancel();
        tokio::select! {
            () = &mut carry => {}
            never = &mut steer => match never {},
        }
        ended
    };
    let cancelled = control.cancelled;
    if cancelled && held.is_alone() {
        // What it has left behind goes too.
        held.sandbox().signal_all(SIGKILL);
    }
    output.finish(STRAGGLERS, sink).await;
    let gone = matches!(ended, ProcessEnd::SandboxGone);
    if cancelled && !gone {
        return Followed { outcome: Outcome::because(OutcomeKind::Cancelled, "its client cancelled it"), gone };
    }
    Followed { outcome: outcome(ended, held).await, gone }
}

/// What is on its way to a process.
struct Control<'a> {
    held: &'a Held,
    number: u32,
    stdin: Option<pipe::Sender>,
    waiting: VecDeque<Bytes>,
    size: usize,
    ended: bool,
    talk: Talk,
    cancelled: bool,
}

enum Turn {
    Told(Option<ExecInput>),
    Feed,
    Kill,
}

impl<'a> Control<'a> {
    fn new(held: &'a Held, number: u32, stdin: Option<pipe::Sender>, talk: Talk) -> Self {
        Self { held, number, stdin, waiting: VecDeque::new(), size: 0, ended: false, talk, cancelled: false }
    }

    /// Steers the process for ever.
    async fn run(&mut self) -> std::convert::Infallible {
        let mut kill_at: Option<Instant> = None;
        let mut killed = false;
        let mut open = true;
        loop {
            let turn = tokio::select! {
                told = self.talk.input.recv(), if open => Turn::Told(told),
                () = writable(self.stdin.as_ref()), if !self.waiting.is_empty() => Turn::Feed,
                () = sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() => Turn::Kill,
            };
            match turn {
                Turn::Told(Some(ExecInput::Stdin(bytes))) => self.take(bytes),
                Turn::Told(Some(ExecInput::End)) => self.ended = true,
                Turn::Told(Some(ExecInput::Signal(signal))) => self.held.sandbox().signal(self.number, signal),
                Turn::Told(told @ (Some(ExecInput::Cancel) | None)) => {
                    open = told.is_some();
                    if !self.cancelled {
                        self.cancelled = true;
                        self.held.sandbox().signal(self.number, SIGTERM);
                        kill_at = Some(Instant::now() + self.talk.grace);
                    }
                }
                Turn::Feed => self.feed(),
                Turn::Kill if killed => {
                    self.held.sandbox().kill();
                    kill_at = None;
                }
                Turn::Kill => {
                    killed = true;
                    if self.held.is_alone() {
                        self.held.sandbox().signal_all(SIGKILL);
                    } else {
                        self.held.sandbox().signal(self.number, SIGKILL);
                    }
                    kill_at = Some(Instant::now() + AFTER_KILL);
                }
            }
            if self.ended && self.waiting.is_empty() {
                self.stdin = None;
            }
        }
    }

    /// Keeps bytes for the process; those that it will never take are taken from it.
    fn take(&mut self, bytes: Bytes) {
        if self.stdin.is_none() || self.ended {
            return self.took(bytes.len());
        }
        self.size += bytes.len();
        self.waiting.push_back(bytes);
        if self.size > self.talk.window {
            // It was told how much may wait: a client that does not count is not heard any further.
            self.ended = true;
        }
    }

    /// Writes what the pipe takes.
    fn feed(&mut self) {
        let (Some(stdin), Some(first)) = (&self.stdin, self.waiting.front_mut()) else { return };
        match stdin.try_write(first) {
            Ok(written) => {
                first.advance(written);
                if first.is_empty() {
                    self.waiting.pop_front();
                }
                self.size -= written;
                self.took(written);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => {
                // A program need not read all of it.
                self.waiting.clear();
                let left = std::mem::take(&mut self.size);
                self.stdin = None;
                self.took(left);
            }
        }
    }

    fn took(&self, bytes: usize) {
        self.talk.taken.send_modify(|taken| *taken += bytes as u64);
    }
}

async fn writable(stdin: Option<&pipe::Sender>) {
    if let Some(stdin) = stdin {
        // An error shows itself when it is written to.
        drop(stdin.writable().await);
    }
}

async fn outcome(end: ProcessEnd, held: &Held) -> Outcome {
    let oom = || Outcome::because(OutcomeKind::Oom, "the sandbox used more memory than its limit");
    match end {
        ProcessEnd::Exit(0) => Outcome { exit_code: Some(0), ..Outcome::ok() },
        ProcessEnd::Exit(KILLED_COMMAND) | ProcessEnd::Signal(SIGKILL) if held.oom_killed().await => oom(),
        ProcessEnd::Exit(code) => Outcome::exit(code),
        ProcessEnd::Signal(signal) => Outcome::signal(signal),
        // Why it was ended comes before what had happened in it earlier.
        ProcessEnd::SandboxGone => match (held.why(), held.sandbox().gone(END_PATIENCE).await) {
            (Some(Why::Cancelled), _) => Outcome::because(OutcomeKind::Cancelled, "it was cancelled while it ran"),
            (Some(Why::Released), _) => Outcome::because(OutcomeKind::Cancelled, "the lease was released"),
            (Some(Why::Stopping), _) => {
                Outcome::because(OutcomeKind::Lost, "the server was stopped before it had ended")
            }
            (None, Some(end)) if end.cause == EndCause::Deadline => {
                Outcome::because(OutcomeKind::Timeout, "the time of the lease was over")
            }
            (None, Some(end)) if end.oom => oom(),
            _ => Outcome::because(OutcomeKind::Lost, "the sandbox went away"),
        },
    }
}
