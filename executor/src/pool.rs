//! The pool: warm sandboxes between two executions.
//!
//! A parked sandbox is owned by a task of its own, its keeper, which watches it, destroys it when it breaks, has been
//! idle for too long or is told to leave, and otherwise hands it to the execution that asks. The handle under which
//! [`Admission`] parks it is the way to ask; a dropped handle means that it has to leave.

use std::borrow::Borrow;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use crate::admission::{Admission, FunctionKey, Room, SandboxKey};
use crate::host::sandbox::{Sandbox, SandboxEnd};
use crate::session::Session;

/// How long the end of a sandbox is waited for by one who wants to know it.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// How often the log is told of a sandbox that does not go.
const STUCK_NOTICE: Duration = Duration::from_secs(60);

/// Asks a keeper for its sandbox.
#[derive(Debug)]
pub(crate) struct Handle(oneshot::Sender<oneshot::Sender<Warm>>);

/// The gate to the sandboxes of this host.
pub(crate) type Gate = Admission<Handle>;

/// Room for one sandbox.
pub(crate) type Place = Room<Handle>;

/// A sandbox with a runner that waits for a call.
#[derive(Debug)]
pub(crate) struct Warm {
    /// The runner.
    pub(crate) session: Box<Session>,
    /// The room it takes.
    pub(crate) room: Place,
}

impl Handle {
    /// The sandbox; `None` if it has ended meanwhile.
    pub(crate) async fn take(self) -> Option<Warm> {
        let (sender, receiver) = oneshot::channel();
        self.0.send(sender).ok()?;
        receiver.await.ok()
    }
}

/// Parks warm sandboxes and buries used ones.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    gate: Gate,
    tasks: TaskTracker,
    idle: Duration,
}

impl Pool {
    /// A pool behind `gate` whose keepers are tasks of `tasks`, and which keeps a sandbox for `idle` at most.
    pub(crate) const fn new(gate: Gate, tasks: TaskTracker, idle: Duration) -> Self {
        Self { gate, tasks, idle }
    }

    /// Keeps a sandbox for the next execution of its revision.
    pub(crate) fn park(&self, warm: Warm, function: FunctionKey, key: SandboxKey) {
        let (handle, demand) = oneshot::channel();
        self.gate.park(&warm.room, function, key, Handle(handle));
        self.tasks.spawn(self.clone().keep(warm, demand));
    }

    async fn keep(self, mut warm: Warm, mut demand: oneshot::Receiver<oneshot::Sender<Warm>>) {
        let asked = tokio::select! {
            biased;
            () = warm.session.idle() => {
                self.gate.unpark(warm.room.number());
                None
            }
            asked = &mut demand => asked.ok(),
            // Somebody may have taken the handle a moment ago, and will ask right away.
            () = sleep(self.idle) => if self.gate.unpark(warm.room.number()) { None } else { (&mut demand).await.ok() },
        };
        let warm = match asked {
            Some(asker) => match asker.send(warm) {
                Ok(()) => return,
                Err(warm) => warm,
            },
            None => {
                // One who asks from now on learns that there is nothing to be had.
                drop(demand);
                warm
            }
        };
        tracing::debug!(sandbox.id = warm.session.sandbox().name(), "an idle sandbox ends");
        self.bury(warm.session.into_sandbox(), warm.room).await;
    }

    /// Kills everything in a sandbox and waits until it is gone; its room is free then. Says how it ended, unless that
    /// takes longer than a few seconds: then it goes on in the background.
    pub(crate) async fn bury<S>(&self, sandbox: S, room: Place) -> Option<SandboxEnd>
    where
        S: Borrow<Sandbox> + Send + Sync + 'static,
    {
        sandbox.borrow().kill();
        let end = sandbox.borrow().gone(END_PATIENCE).await;
        if end.is_some() {
            drop(room);
        } else {
            self.tasks.spawn(outlast(sandbox, room));
        }
        end
    }
}

/// Waits until a sandbox that does not go is gone.
async fn outlast<S: Borrow<Sandbox>>(sandbox: S, room: Place) {
    loop {
        tracing::warn!(sandbox.id = sandbox.borrow().name(), "the sandbox was killed and is not gone yet");
        if sandbox.borrow().gone(STUCK_NOTICE).await.is_some() {
            drop(room);
            return;
        }
    }
}
