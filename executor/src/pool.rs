//! The pool: warm sandboxes between two executions.
//!
//! A parked sandbox belongs to the handle under which [`Admission`] parks it: whoever is given the handle has it at once, and
//! a handle that is dropped buries it. One task looks at all that are parked, a few times within the time that they may be
//! idle, and takes out those that have died, have spoken unasked or have been idle for long enough. A sandbox that several
//! calls share has a task of its own, to which all of its handles lead.

use std::borrow::Borrow;
use std::convert::Infallible;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::sync::{Notify, oneshot};
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

/// How often parked sandboxes are looked at: four times within the time that they may be idle, within these bounds.
const LOOK: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(1);

/// The way to a sandbox that can be had.
#[derive(Debug)]
pub(crate) enum Handle {
    /// A sandbox that waits for its next call.
    Whole(Parked),
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

/// A parked sandbox; buried when dropped.
#[derive(Debug)]
pub(crate) struct Parked {
    warm: Option<Warm>,
    since: Instant,
    pool: Pool,
}

impl Parked {
    /// Whether it may stay, however long it has been idle if it is to be `kept`. What it has written meanwhile is thrown away.
    fn may_stay(&mut self, kept: bool) -> bool {
        (kept || self.since.elapsed() < self.pool.idle)
            && self.warm.as_mut().is_some_and(|warm| warm.session.is_resting())
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        let Some(Warm { session, room }) = self.warm.take() else { return };
        tracing::debug!(sandbox.id = session.sandbox().name(), "an idle sandbox ends");
        let pool = self.pool.clone();
        let bury = async move {
            pool.bury(session.into_sandbox(), room).await;
        };
        self.pool.tasks.spawn_on(bury, &self.pool.runtime);
    }
}

impl Handle {
    /// The sandbox; `None` if it is not to be had for oneself.
    pub(crate) fn take(self) -> Option<Warm> {
        match self {
            Self::Whole(mut parked) => parked.warm.take(),
            Self::Shared(_) | Self::Spare(_) => None,
        }
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
    runtime: runtime::Handle,
    idle: Duration,
    ended: CancellationToken,
    /// Something was parked.
    some: Arc<Notify>,
}

impl Pool {
    /// A pool behind `gate` whose tasks are tasks of `tasks`, and which keeps a sandbox for `idle` at most. `ended` ends
    /// starts of shared sandboxes that are under way. To be made within the runtime that runs it.
    pub(crate) fn new(gate: Gate, tasks: TaskTracker, idle: Duration, ended: CancellationToken) -> Self {
        let (runtime, some) = (runtime::Handle::current(), Arc::new(Notify::new()));
        let pool = Self { gate, tasks, runtime, idle, ended, some };
        pool.tasks.spawn(pool.clone().look_after());
        pool
    }

    /// Takes out those of the parked sandboxes that may not stay, until nothing is parked any more for good.
    async fn look_after(self) {
        let pause = (self.idle / 4).clamp(*LOOK.start(), *LOOK.end());
        let rounds = async {
            loop {
                if self.gate.parked() == 0 {
                    self.some.notified().await;
                }
                sleep(pause).await;
                self.gate.weed(|handle, kept| match handle {
                    Handle::Whole(parked) => parked.may_stay(kept),
                    Handle::Shared(_) | Handle::Spare(_) => true,
                });
            }
        };
        tokio::select! {
            () = rounds => {}
            () = self.ended.cancelled() => {}
        }
    }

    /// Serves all who come into a sandbox that is shared, and destroys it when nobody does any more.
    pub(crate) fn share(&self, sandbox: Blank, room: Place, launch: Launch, requests: Requests) {
        let (pool, number) = (self.clone(), room.number());
        let crew = Crew { launch, idle: self.idle, ended: self.ended.clone() };
        self.tasks.spawn(async move {
            let leave = |why| pool.gate.unpark(number, why == Leave::Unfit);
            let sandbox = crew.serve(sandbox, requests, leave).await;
            pool.end_shared(sandbox, room).await;
        });
    }

    /// Keeps a sandbox for the next execution of its revision.
    pub(crate) fn park(&self, warm: Warm, function: FunctionKey, key: SandboxKey) {
        let room = warm.room.number();
        let parked = Parked { warm: Some(warm), since: Instant::now(), pool: self.clone() };
        self.gate.park(room, function, key, 1, Handle::Whole(parked));
        self.some.notify_one();
    }

    /// Keeps a sandbox for so many executions of its revision at a time.
    pub(crate) fn park_shared(&self, warm: Warm, function: FunctionKey, key: SandboxKey, slots: u32) {
        let (ticket, requests) = session::ticket();
        let Warm { session, room } = warm;
        let (pool, number) = (self.clone(), room.number());
        self.gate.park(number, function, key, slots, Handle::Shared(ticket));
        self.tasks.spawn(async move {
            let leave = |why| pool.gate.unpark(number, why == Leave::Unfit);
            let sandbox = session::serve(*session, pool.idle, requests, leave).await;
            pool.end_shared(sandbox, room).await;
        });
    }

    async fn end_shared(&self, sandbox: Sandbox, room: Place) {
        tracing::debug!(sandbox.id = sandbox.name(), "a shared sandbox ends");
        self.bury(sandbox, room).await;
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
