//! The pool: warm sandboxes between two executions.
//!
//! A parked sandbox is owned by a task of its own, its keeper, which watches it, destroys it when it breaks, has been
//! idle for too long or is told to leave, and otherwise hands it to the execution that asks. The handle under which
//! [`Admission`] parks it is the way to ask; a dropped handle means that it has to leave. A sandbox that several calls share
//! has a task of its own, too, to which all of its handles lead.

use std::borrow::Borrow;
use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{self, Admission, FunctionKey, Room, SandboxKey};
use crate::host::sandbox::{Sandbox, SandboxEnd};
use crate::session::{self, Blank, Crew, Launch, Leave, Requests, Session, Ticket};

/// How long the end of a sandbox is waited for by one who wants to know it.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// How often the log is told of a sandbox that does not go.
const STUCK_NOTICE: Duration = Duration::from_secs(60);

/// The way to a sandbox that can be had.
#[derive(Debug)]
pub(crate) enum Handle {
    /// Asks a keeper for its sandbox.
    Whole(oneshot::Sender<oneshot::Sender<Warm>>),
    /// Leads into a sandbox that is shared.
    Shared(Ticket),
    /// Leads nowhere: a sandbox that is nobody's yet leaves when this is dropped.
    Spare(#[expect(dead_code, reason = "to drop it is all that is done with it")] oneshot::Sender<Infallible>),
}

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

impl admission::Handle for Handle {
    type Rest = Requests;

    fn open() -> (Self, Requests) {
        let (ticket, requests) = session::ticket();
        (Self::Shared(ticket), requests)
    }

    fn share(&self) -> Self {
        match self {
            Self::Shared(ticket) => Self::Shared(ticket.clone()),
            // Never handed out by the gate, which shares only what was opened to be shared; it leads nowhere.
            Self::Whole(_) | Self::Spare(_) => Self::open().0,
        }
    }
}

impl Handle {
    /// The sandbox; `None` if it has ended meanwhile, or is not to be had for oneself.
    pub(crate) async fn take(self) -> Option<Warm> {
        let Self::Whole(keeper) = self else { return None };
        let (sender, receiver) = oneshot::channel();
        keeper.send(sender).ok()?;
        receiver.await.ok()
    }

    /// The way into a sandbox that is shared.
    pub(crate) fn ticket(self) -> Option<Ticket> {
        match self {
            Self::Shared(ticket) => Some(ticket),
            Self::Whole(_) | Self::Spare(_) => None,
        }
    }
}

/// Parks warm sandboxes and buries used ones.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    gate: Gate,
    tasks: TaskTracker,
    idle: Duration,
    ended: CancellationToken,
}

impl Pool {
    /// A pool behind `gate` whose keepers are tasks of `tasks`, and which keeps a sandbox for `idle` at most. `ended` ends
    /// starts of shared sandboxes that are under way.
    pub(crate) const fn new(gate: Gate, tasks: TaskTracker, idle: Duration, ended: CancellationToken) -> Self {
        Self { gate, tasks, idle, ended }
    }

    /// Serves all who come into a sandbox that is shared, and destroys it when nobody does any more.
    pub(crate) fn share(&self, sandbox: Blank, room: Place, launch: Launch, requests: Requests) {
        let (pool, number) = (self.clone(), room.number());
        let crew = Crew { launch, idle: self.idle, ended: self.ended.clone() };
        self.tasks.spawn(async move {
            let leave = |why| pool.gate.unpark(number, why == Leave::Unfit);
            let sandbox = crew.serve(sandbox, requests, leave).await;
            tracing::debug!(sandbox.id = sandbox.name(), "a shared sandbox ends");
            pool.bury(sandbox, room).await;
        });
    }

    /// Keeps a sandbox for the next execution of its revision.
    pub(crate) fn park(&self, warm: Warm, function: FunctionKey, key: SandboxKey) {
        let (handle, demand) = oneshot::channel();
        self.gate.park(&warm.room, function, key, Handle::Whole(handle));
        self.tasks.spawn(self.clone().keep(warm, demand));
    }

    async fn keep(self, mut warm: Warm, mut demand: oneshot::Receiver<oneshot::Sender<Warm>>) {
        let asked = tokio::select! {
            biased;
            () = warm.session.idle() => {
                self.gate.unpark(warm.room.number(), false);
                None
            }
            asked = &mut demand => asked.ok(),
            // Somebody may have taken the handle a moment ago, and will ask right away.
            () = sleep(self.idle) => if self.gate.unpark(warm.room.number(), false) { None } else { (&mut demand).await.ok() },
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
