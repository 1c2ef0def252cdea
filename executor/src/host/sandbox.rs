//! The server's side of one sandbox: a handle that talks to its shim.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nix::sys::timerfd::{Expiration, TimerFd, TimerSetTimeFlags};
use runlet_core::engine::Network;
use runlet_core::execution::{Remains, Usage};
use runlet_core::limits::Limits;
use runlet_core::manifest::RuntimeKind;
use runlet_core::name::{Namespace, RevisionDigest};
use tokio::net::unix::pipe;
use tokio::sync::{oneshot, watch};

use super::driver::{Shared, Waiting, lock};
use super::socket::Socket;
use super::timer_span;
use crate::meter::Meter;
use crate::wire::message::{Spawn, Specialise, ToShim};

/// What sandbox is wanted.
#[derive(Debug, Clone)]
pub struct SandboxRequest {
    /// Owner: goes into its name and its record.
    pub namespace: Namespace,
    /// The revision whose code is mounted at `/var/task`; it must be unpacked in the revisions directory.
    pub revision: Option<RevisionDigest>,
    /// The runtime whose runner is mounted at `/run/runlet`.
    pub runtime: RuntimeKind,
    /// Limits (`timeout` is not looked at here: see [`Sandbox::arm`]).
    pub limits: Limits,
    /// What of the network it sees.
    pub network: Network,
    /// Whether it gets a working directory on disk, at `/builds`.
    pub work: bool,
    /// The cache of its namespace that is mounted at `/cache`.
    pub cache: Option<String>,
}

impl SandboxRequest {
    /// A sandbox that is nobody's yet.
    #[must_use]
    pub fn stem(runtime: RuntimeKind, limits: Limits) -> Self {
        let namespace = Namespace::default_namespace();
        Self { namespace, revision: None, runtime, limits, network: Network::None, work: false, cache: None }
    }
}

/// Why a sandbox could not be made or used.
#[derive(Debug, thiserror::Error, Clone)]
pub enum SandboxError {
    /// The zygote is gone: the server must end.
    #[error("the zygote is gone")]
    ZygoteGone,
    /// It could not be created; what the shim said.
    #[error("could not create the sandbox: {0}")]
    Create(String),
    /// It has ended.
    #[error("the sandbox has ended")]
    Gone,
    /// The program could not be started: the errno of execve, chdir or fork inside the sandbox.
    #[error("could not start `{program}` in the sandbox: {message}")]
    Spawn {
        /// argv[0].
        program: String,
        /// What the kernel said.
        message: String,
        /// Its number.
        errno: i32,
    },
    /// The shim answered with something else than was asked.
    #[error("the shim broke the protocol: {0}")]
    Protocol(String),
    /// It could not be given to a revision.
    #[error("could not give the sandbox to a revision: {0}")]
    Specialise(String),
    /// A limit could not be changed.
    #[error("could not change the limits: {0}")]
    Resize(String),
}

/// A program to start in the sandbox.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
    /// Program and arguments; a program without `/` is looked up in PATH of `env`.
    pub argv: Vec<String>,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub cwd: String,
    /// Whether it gets a pipe for stdin (else /dev/null).
    pub stdin: bool,
    /// Whether it gets a unix stream socket at fd 3.
    pub channel: bool,
    /// Text files to write (mode 0600) before it starts: absolute path, below a directory that is writable in the sandbox, and content.
    pub files: Vec<(String, String)>,
}

/// How a process in a sandbox ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ProcessEnd {
    /// With this status.
    Exit(i32),
    /// By this signal.
    Signal(i32),
    /// The sandbox ended under it.
    SandboxGone,
}

/// A process in a sandbox. stdout and stderr are always pipes of their own.
#[derive(Debug)]
pub struct Process {
    /// Its stdin, if it was asked for.
    pub stdin: Option<pipe::Sender>,
    /// Its stdout.
    pub stdout: pipe::Receiver,
    /// Its stderr.
    pub stderr: pipe::Receiver,
    /// The other end of its fd 3, if it was asked for.
    pub channel: Option<Socket>,
    /// How it ended. The pipes may still hold output.
    pub end: oneshot::Receiver<ProcessEnd>,
    /// Number of the process among those of its sandbox; names it to [`Sandbox::signal`].
    pub number: u32,
}

/// Why a sandbox ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndCause {
    /// It was told to.
    Killed,
    /// Its deadline passed.
    Deadline,
    /// The server went away.
    ServerGone,
    /// Its init ended without being told (out of memory, or a fault).
    Died,
}

/// The end of a sandbox, after everything of it was destroyed.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct SandboxEnd {
    /// Why.
    pub cause: EndCause,
    /// Whether the kernel killed something in it for lack of memory.
    pub oom: bool,
    /// What it used in all.
    pub usage: Usage,
    /// What is left of it.
    pub remains: Remains,
}

/// A live sandbox. Dropping the handle kills it.
#[derive(Debug)]
pub struct Sandbox {
    name: String,
    shared: Arc<Shared>,
    timer: TimerFd,
    gone: watch::Receiver<Option<SandboxEnd>>,
    next: AtomicU32,
    edition: Arc<AtomicI64>,
    meter: Option<Meter>,
}

/// A hold on the limits of a sandbox, which does not keep it alive.
#[derive(Debug, Clone)]
pub struct Reins {
    shared: Weak<Shared>,
    edition: Arc<AtomicI64>,
}

impl Reins {
    /// Whether there is no sandbox any more.
    #[must_use]
    pub fn is_loose(&self) -> bool {
        self.shared.strong_count() == 0
    }

    /// Which setting of its limits is in force.
    #[must_use]
    pub fn edition(&self) -> i64 {
        self.edition.load(Ordering::Relaxed)
    }

    /// Says which setting is in force.
    pub fn set_edition(&self, edition: i64) {
        self.edition.store(edition, Ordering::Relaxed);
    }

    /// Changes memory, cpu and pids limits while it runs.
    ///
    /// # Errors
    /// [`SandboxError::Resize`] with the reason, [`SandboxError::Gone`] when it has ended.
    pub async fn resize(&self, limits: Limits) -> Result<(), SandboxError> {
        let shared = self.shared.upgrade().ok_or(SandboxError::Gone)?;
        shared.resize(limits).await
    }
}

impl Sandbox {
    pub(super) fn new(
        name: String,
        shared: Arc<Shared>,
        timer: TimerFd,
        gone: watch::Receiver<Option<SandboxEnd>>,
        meter: Option<Meter>,
    ) -> Self {
        Self { meter, name, shared, timer, gone, next: AtomicU32::new(1), edition: Arc::default() }
    }

    /// Its name: the container id, the cgroup's last component.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sets the moment at which the shim kills everything in it; `None`: none. A timer that both processes share: no message is sent.
    pub fn arm(&self, deadline: Option<Instant>) {
        // Setting a timer that we made can only fail for a span that the kernel cannot hold; those are cut to a year.
        let _ = match deadline {
            None => self.timer.unset(),
            Some(deadline) => {
                let span = deadline.saturating_duration_since(Instant::now()).min(Duration::from_secs(31_536_000));
                self.timer.set(Expiration::OneShot(timer_span(span)), TimerSetTimeFlags::empty())
            }
        };
    }

    /// Starts a program in it.
    ///
    /// # Errors
    /// [`SandboxError::Spawn`] when the program could not be started, [`SandboxError::Gone`] when the sandbox has ended.
    pub async fn spawn(&self, spec: ProcessSpec) -> Result<Process, SandboxError> {
        let io = ProcessIo::new(&spec).map_err(|error| SandboxError::Protocol(format!("make its pipes: {error}")))?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let program = spec.argv.first().cloned().unwrap_or_default();
        let (started, start) = oneshot::channel();
        let (ended, end) = oneshot::channel();
        lock(&self.shared.programs).insert(number, Waiting { started: Some(started), ended: Some(ended) });
        let message = ToShim::Spawn(Spawn {
            number,
            argv: spec.argv,
            env: spec.env,
            cwd: spec.cwd,
            stdin: spec.stdin,
            channel: spec.channel,
            files: spec.files,
        });
        self.shared.send(&message, &io.theirs).await?;
        drop(io.theirs);
        match start.await {
            Ok(Ok(())) => {
                Ok(Process { stdin: io.stdin, stdout: io.stdout, stderr: io.stderr, channel: io.channel, end, number })
            }
            Ok(Err((message, errno))) => Err(SandboxError::Spawn { program, message, errno }),
            Err(_) => Err(SandboxError::Gone),
        }
    }

    /// Sends a signal to the process group of a process in it. Best effort.
    pub fn signal(&self, process: u32, signal: i32) {
        self.shared.try_send(&ToShim::Signal { number: process, signal });
    }

    /// Sends a signal to every process in it but its init. Best effort.
    pub fn signal_all(&self, signal: i32) {
        self.signal(0, signal);
    }

    /// What it has used so far; `None` where it ends before it can say.
    pub async fn usage(&self) -> Option<Usage> {
        let (answer, answered) = oneshot::channel();
        lock(&self.shared.usage).push(answer);
        self.shared.send(&ToShim::Usage, &[]).await.ok()?;
        answered.await.ok()
    }

    /// Gives a sandbox that was made without a revision to one, for good: its code is mounted and its limits are set.
    ///
    /// # Errors
    /// [`SandboxError::Specialise`] with the shim's reason; the sandbox is of no use then.
    pub async fn specialise(&self, revision: RevisionDigest, limits: Limits) -> Result<(), SandboxError> {
        let (answer, answered) = oneshot::channel();
        lock(&self.shared.specialised).replace(answer);
        self.shared.send(&ToShim::Specialise(Specialise { revision, limits }), &[]).await?;
        match answered.await {
            Ok(None) => Ok(()),
            Ok(Some(refusal)) => Err(SandboxError::Specialise(refusal)),
            Err(_) => Err(SandboxError::Gone),
        }
    }

    /// Changes memory, cpu and pids limits while it runs.
    ///
    /// # Errors
    /// [`SandboxError::Resize`] with the kernel's reason.
    pub async fn resize(&self, limits: Limits) -> Result<(), SandboxError> {
        self.shared.resize(limits).await
    }

    /// What was used in it since this was asked last, or since it was made; nothing is known where the kernel has no meter.
    #[must_use]
    pub fn bill(&self) -> Usage {
        self.meter.as_ref().map(Meter::bill).unwrap_or_default()
    }

    /// Its meter, where the kernel has one.
    pub(crate) const fn meter(&self) -> Option<&Meter> {
        self.meter.as_ref()
    }

    /// Which setting of its limits is in force.
    #[must_use]
    pub fn edition(&self) -> i64 {
        self.edition.load(Ordering::Relaxed)
    }

    /// A hold on its limits.
    #[must_use]
    pub fn reins(&self) -> Reins {
        Reins { shared: Arc::downgrade(&self.shared), edition: Arc::clone(&self.edition) }
    }

    /// Whether the kernel has killed something in it for lack of memory since it was made. Also answers once it is gone.
    pub async fn oom_killed(&self) -> bool {
        let (answer, answered) = oneshot::channel();
        lock(&self.shared.oom).push(answer);
        if let Some(end) = self.ended() {
            return end.oom;
        }
        if self.shared.send(&ToShim::Oom, &[]).await.is_err() {
            return self.ended().is_some_and(|end| end.oom);
        }
        answered.await.unwrap_or_else(|_| self.ended().is_some_and(|end| end.oom))
    }

    /// Kills everything in it, now. Returns at once: see [`Sandbox::gone`].
    pub fn kill(&self) {
        if !self.shared.try_send(&ToShim::Kill) {
            // The shim does not take messages: the shared timer reaches it all the same.
            self.arm(Some(Instant::now()));
        }
    }

    /// Waits until everything of it is gone (or `patience` is over: `None`), and says how it ended.
    pub async fn gone(&self, patience: Duration) -> Option<SandboxEnd> {
        let mut gone = self.gone.clone();
        let end = tokio::time::timeout(patience, gone.wait_for(Option::is_some)).await;
        end.ok()?.ok()?.clone()
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<SandboxEnd> {
        self.gone.borrow().clone()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if self.gone.borrow().is_none() {
            self.kill();
        }
    }
}

/// The pipes of a process: our ends, and theirs in the order of [`Spawn`].
struct ProcessIo {
    stdin: Option<pipe::Sender>,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
    channel: Option<Socket>,
    theirs: Vec<OwnedFd>,
}

impl ProcessIo {
    fn new(spec: &ProcessSpec) -> io::Result<Self> {
        let mut theirs = Vec::new();
        let mut stdin = None;
        if spec.stdin {
            let (sender, receiver) = pipe::pipe()?;
            theirs.push(receiver.into_blocking_fd()?);
            stdin = Some(sender);
        }
        let mut output = || -> io::Result<pipe::Receiver> {
            let (sender, receiver) = pipe::pipe()?;
            theirs.push(sender.into_blocking_fd()?);
            Ok(receiver)
        };
        let (stdout, stderr) = (output()?, output()?);
        let mut channel = None;
        if spec.channel {
            let (ours, inner) = Socket::pair()?;
            channel = Some(ours);
            theirs.push(inner);
        }
        Ok(Self { stdin, stdout, stderr, channel, theirs })
    }
}
