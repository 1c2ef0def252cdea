//! The task that reads what a shim says, and the state it shares with the sandbox's handle.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::timerfd::TimerFd;
use runlet_core::execution::{Remains, Usage};
use runlet_core::limits::Limits;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{oneshot, watch};
use tokio_util::task::TaskTracker;

use super::sandbox::{EndCause, ProcessEnd, Sandbox, SandboxEnd, SandboxError};
use crate::meter::Meter;
use crate::sys::watch::watch;
use crate::wire::message::{FromShim, Program, ToShim};
use crate::wire::{Received, Seqpacket};

/// What waits for a message about a program.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) started: Option<oneshot::Sender<Result<(), (String, i32)>>>,
    pub(super) ended: Option<oneshot::Sender<ProcessEnd>>,
}

/// What the handle and the reading task share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) control: AsyncFd<Seqpacket>,
    pub(super) programs: Mutex<HashMap<u32, Waiting>>,
    pub(super) specialised: Mutex<Option<oneshot::Sender<Option<String>>>>,
    resized: Mutex<VecDeque<oneshot::Sender<Option<String>>>>,
    resizing: tokio::sync::Mutex<()>,
    pub(super) oom: Mutex<Vec<oneshot::Sender<bool>>>,
    pub(super) usage: Mutex<Vec<oneshot::Sender<Usage>>>,
}

impl Shared {
    /// Sends; waits while the shim is behind.
    pub(super) async fn send(&self, message: &ToShim, fds: &[OwnedFd]) -> Result<(), SandboxError> {
        let borrowed: Vec<_> = fds.iter().map(OwnedFd::as_fd).collect();
        let sent = self.control.async_io(Interest::WRITABLE, |control| control.send(message, &borrowed)).await;
        sent.map_err(|_| SandboxError::Gone)
    }

    /// Changes the limits; one change at a time.
    pub(super) async fn resize(&self, limits: Limits) -> Result<(), SandboxError> {
        let _one = self.resizing.lock().await;
        let (answer, answered) = oneshot::channel();
        lock(&self.resized).push_back(answer);
        self.send(&ToShim::Resize(limits), &[]).await?;
        match answered.await {
            Ok(None) => Ok(()),
            Ok(Some(refusal)) => Err(SandboxError::Resize(refusal)),
            Err(_) => Err(SandboxError::Gone),
        }
    }

    /// Sends if the shim takes it at once; for messages whose loss does no harm.
    pub(super) fn try_send(&self, message: &ToShim) -> bool {
        self.control.get_ref().send(message, &[]).is_ok()
    }
}

/// Waits for the shim's first word and starts the task that reads all others.
pub(super) async fn open(
    name: String,
    control: Seqpacket,
    timer: TimerFd,
    tasks: &TaskTracker,
) -> Result<Sandbox, SandboxError> {
    let failed = |error: io::Error| SandboxError::Create(error.to_string());
    control.set_nonblocking().map_err(failed)?;
    let control = watch(control).map_err(failed)?;
    let shared = Arc::new(Shared {
        control,
        programs: Mutex::default(),
        specialised: Mutex::default(),
        resized: Mutex::default(),
        resizing: tokio::sync::Mutex::default(),
        oom: Mutex::default(),
        usage: Mutex::default(),
    });
    // Should the caller stop waiting, the control socket closes with `shared` and the shim takes everything down.
    let meter = match receive(&shared).await {
        Some((FromShim::Created, fds)) => Meter::new(fds),
        Some((FromShim::CreateFailed(reason), _)) => return Err(SandboxError::Create(reason)),
        Some(_) => return Err(SandboxError::Protocol("its first word was not about the creation".to_owned())),
        None => return Err(SandboxError::Create("the shim ended before the sandbox was there".to_owned())),
    };
    let (ended, gone) = watch::channel(None);
    tasks.spawn(read(shared.clone(), ended));
    Ok(Sandbox::new(name, shared, timer, gone, meter))
}

async fn receive(shared: &Shared) -> Option<(FromShim, Vec<OwnedFd>)> {
    let received = shared.control.async_io(Interest::READABLE, Seqpacket::receive).await;
    received.ok().flatten().map(|Received { message, fds }: Received<FromShim>| (message, fds))
}

async fn read(shared: Arc<Shared>, ended: watch::Sender<Option<SandboxEnd>>) {
    let end = loop {
        match receive(&shared).await.map(|(message, _)| message) {
            Some(FromShim::Program(program)) => tell(&shared, program),
            Some(FromShim::Specialised(refusal)) => {
                if let Some(waiting) = lock(&shared.specialised).take() {
                    let _ = waiting.send(refusal);
                }
            }
            Some(FromShim::Resized(refusal)) => {
                if let Some(waiting) = lock(&shared.resized).pop_front() {
                    let _ = waiting.send(refusal);
                }
            }
            Some(FromShim::Oom(killed)) => {
                for waiting in lock(&shared.oom).drain(..) {
                    let _ = waiting.send(killed);
                }
            }
            Some(FromShim::Usage(used)) => {
                for waiting in lock(&shared.usage).drain(..) {
                    let _ = waiting.send(used);
                }
            }
            Some(FromShim::Gone(end)) => break end,
            // A shim that dies takes the sandbox with it (parent-death signal); the zygote sweeps behind it.
            Some(FromShim::Created | FromShim::CreateFailed(_)) | None => {
                break SandboxEnd {
                    cause: EndCause::Died,
                    oom: false,
                    usage: Usage::default(),
                    remains: Remains::default(),
                };
            }
        }
    };
    let _ = ended.send(Some(end));
    lock(&shared.oom).clear();
    lock(&shared.usage).clear();
    lock(&shared.specialised).take();
    lock(&shared.resized).clear();
    for (_, waiting) in lock(&shared.programs).drain() {
        if let Some(ended) = waiting.ended {
            let _ = ended.send(ProcessEnd::SandboxGone);
        }
    }
}

fn tell(shared: &Shared, program: Program) {
    let mut programs = lock(&shared.programs);
    match program {
        Program::Started { number } => {
            if let Some(started) = programs.get_mut(&number).and_then(|waiting| waiting.started.take()) {
                let _ = started.send(Ok(()));
            }
        }
        Program::Failed { number, message, errno } => {
            if let Some(started) = programs.remove(&number).and_then(|waiting| waiting.started) {
                let _ = started.send(Err((message, errno)));
            }
        }
        Program::Ended { number, end } => {
            if let Some(ended) = programs.remove(&number).and_then(|waiting| waiting.ended) {
                let _ = ended.send(end);
            }
        }
    }
}

/// A lock whose holder cannot have left anything half done: every section above is a single step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
