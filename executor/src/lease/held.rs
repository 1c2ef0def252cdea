//! A lease that somebody outside holds: its terms, what has run in it, and when it ends.
//!
//! ```text
//!  given ──► idle ◄──► busy (steps run) ──► ending (released, cancelled, its time over, its sandbox dead) ──► closed
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runlet_core::clock::{self, Timestamp};
use runlet_core::engine::{EngineError, Lease, Network};
use runlet_core::execution::Usage;
use runlet_core::id::{InvocationId, LeaseId};
use runlet_core::limits::Limits;
use runlet_core::name::Namespace;
use runlet_core::outcome::{Outcome, OutcomeKind};
use runlet_core::store::lease::NewLease;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::tally::Tally;
use super::{Leased, Leases};
use crate::host::sandbox::{EndCause, Sandbox, SandboxEnd};
use crate::output::mask::Masks;
use crate::pool::Place;

/// The longest that a lease can last from the moment it is given or renewed.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What was agreed upon when the lease was given.
#[derive(Debug)]
pub(crate) struct Terms {
    /// What it is on record as.
    pub(crate) record: NewLease,
    /// The holder's name for it.
    pub(crate) key: Option<String>,
    /// Its limits.
    pub(crate) limits: Limits,
    /// What of the network it sees.
    pub(crate) network: Network,
    /// How long it lasts while nothing runs in it.
    pub(crate) idle: Option<Duration>,
    /// The environment that commands get before their own.
    pub(crate) env: BTreeMap<String, String>,
    /// Where commands run that do not say where.
    pub(crate) cwd: String,
    /// Values that are masked in the output on record.
    pub(crate) masks: Masks,
}

/// Why a lease is ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Its holder gave it back, or has another one by now.
    Released,
    /// Somebody cancelled its invocation.
    Cancelled,
    /// The server is stopping.
    Stopping,
}

/// A lease.
#[derive(Debug)]
pub(crate) struct Held {
    terms: Terms,
    sandbox: Arc<Sandbox>,
    created_at: Timestamp,
    state: Mutex<State>,
    /// Cancelled once its end is on record.
    closed: CancellationToken,
}

#[derive(Debug)]
struct State {
    /// Where its memory is accounted for; gone once the sandbox is.
    room: Option<Place>,
    limits: Limits,
    /// It lasts no longer than this, whatever runs in it.
    last: Instant,
    expires: Timestamp,
    running: u32,
    steps: u32,
    tally: Tally,
    why: Option<Why>,
    ended: bool,
    /// CPU time that earlier steps have used, microseconds.
    spent: i64,
    oom: bool,
}

/// A step that runs. When it is dropped, the lease is a step less busy.
#[derive(Debug)]
pub(crate) struct Busy {
    held: Arc<Held>,
    /// How many steps there have been with this one.
    pub(crate) number: u32,
    /// The moment at which the sandbox ends.
    pub(crate) until: Instant,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.held.lock();
        state.running -= 1;
        self.held.arm(&mut state);
    }
}

impl Held {
    /// A lease on a sandbox, for `span` from now.
    pub(crate) fn new(terms: Terms, leased: Leased, span: Duration) -> Arc<Self> {
        let state = State {
            room: Some(leased.room),
            limits: terms.limits,
            last: Instant::now() + span.min(LONGEST),
            expires: clock::now(),
            running: 0,
            steps: 0,
            tally: Tally::default(),
            why: None,
            ended: false,
            spent: 0,
            oom: false,
        };
        let held = Self {
            terms,
            sandbox: leased.sandbox,
            created_at: clock::now(),
            state: Mutex::new(state),
            closed: CancellationToken::new(),
        };
        held.arm(&mut held.lock());
        Arc::new(held)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the sandbox's deadline to what it is now.
    fn arm(&self, state: &mut State) {
        let now = Instant::now();
        let until = match self.terms.idle {
            Some(idle) if state.running == 0 => state.last.min(now + idle),
            _ => state.last,
        };
        state.expires = clock::now() + until.saturating_duration_since(now);
        self.sandbox.arm(Some(until.into_std()));
    }

    pub(crate) const fn id(&self) -> LeaseId {
        self.terms.record.id
    }

    pub(crate) const fn record(&self) -> &NewLease {
        &self.terms.record
    }

    pub(crate) const fn terms(&self) -> &Terms {
        &self.terms
    }

    pub(crate) const fn sandbox(&self) -> &Arc<Sandbox> {
        &self.sandbox
    }

    pub(crate) const fn namespace(&self) -> &Namespace {
        &self.terms.record.namespace
    }

    pub(crate) const fn invocation(&self) -> InvocationId {
        self.terms.record.invocation
    }

    pub(crate) fn key(&self) -> Option<&str> {
        self.terms.key.as_deref()
    }

    /// What its holder is told about it.
    pub(crate) fn describe(&self) -> Lease {
        let state = self.lock();
        let NewLease { id, namespace, invocation, function, cause } = &self.terms.record;
        Lease {
            id: *id,
            key: self.terms.key.clone(),
            namespace: namespace.clone(),
            invocation: *invocation,
            cause: cause.kind,
            function: function.as_ref().map(|(function, _)| function.clone()),
            sandbox: self.sandbox.name().to_owned(),
            limits: state.limits,
            network: self.terms.network,
            running: state.running,
            created_at: self.created_at,
            expires: state.expires,
        }
    }

    /// Moves its end to `span` from now.
    pub(crate) fn renew(&self, span: Duration) {
        let mut state = self.lock();
        state.last = Instant::now() + span.min(LONGEST);
        self.arm(&mut state);
    }

    /// Changes its limits.
    pub(crate) async fn resize(&self, limits: Limits) -> Result<(), EngineError> {
        let before = self.claim(limits).ok_or_else(|| {
            EngineError::QueueFull(format!("this host has no room for {} more memory", limits.memory))
        })?;
        let resized = self.sandbox.resize(limits).await;
        if resized.is_err() {
            self.claim(before);
        }
        resized.map_err(|error| EngineError::Conflict(error.to_string()))
    }

    /// Changes the room it takes; what its limits were, or `None` if there is no room for that.
    fn claim(&self, limits: Limits) -> Option<Limits> {
        let mut state = self.lock();
        state.room.as_mut()?.resize(limits.memory.0).then(|| std::mem::replace(&mut state.limits, limits))
    }

    /// A step begins; `None` if the lease is ending.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<Busy> {
        let mut state = self.lock();
        if state.why.is_some() || state.ended || self.sandbox.ended().is_some() {
            return None;
        }
        state.running += 1;
        state.steps += 1;
        self.arm(&mut state);
        Some(Busy { held: Arc::clone(self), number: state.steps, until: state.last })
    }

    /// A step that counts has ended.
    pub(crate) fn count(&self, step: Option<&str>, outcome: &Outcome) {
        self.lock().tally.add(step, outcome.clone());
    }

    /// What a step has used, from what the sandbox has used in all.
    pub(crate) fn bill(&self, total: Usage) -> Usage {
        let mut state = self.lock();
        let cpu_us = total.cpu_us.map(|total| total - std::mem::replace(&mut state.spent, total));
        Usage { cpu_us, ..total }
    }

    /// Whether the kernel has killed for lack of memory since somebody asked last.
    pub(crate) async fn oom_killed(&self) -> bool {
        let killed = self.sandbox.oom_killed().await;
        killed && !std::mem::replace(&mut self.lock().oom, true)
    }

    /// Whether only one step runs.
    pub(crate) fn is_alone(&self) -> bool {
        self.lock().running <= 1
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.lock().running > 0
    }

    pub(crate) fn is_ending(&self) -> bool {
        let state = self.lock();
        state.why.is_some() || state.ended
    }

    /// Ends it, and everything in it. The first reason counts.
    pub(crate) fn end(&self, why: Why) {
        self.lock().why.get_or_insert(why);
        self.sandbox.kill();
    }

    /// Why it was ended from outside, if it was.
    pub(crate) fn why(&self) -> Option<Why> {
        self.lock().why
    }

    /// Waits until its sandbox is gone and no step of it runs any more; its room is free then.
    pub(crate) async fn over(&self, table: &Leases) -> SandboxEnd {
        let end = loop {
            if let Some(end) = self.sandbox.gone(LONGEST).await {
                break end;
            }
        };
        let room = {
            let mut state = self.lock();
            state.ended = true;
            state.room.take()
        };
        drop(room);
        table.until(|_| !self.is_busy()).await;
        end
    }

    /// The outcome of the whole lease, whose sandbox ended like that.
    pub(crate) fn outcome(&self, end: &SandboxEnd) -> Outcome {
        let state = self.lock();
        let because = Outcome::because;
        match (state.why, end.cause) {
            (Some(Why::Cancelled), _) => because(OutcomeKind::Cancelled, "it was cancelled"),
            (Some(Why::Stopping), _) => because(OutcomeKind::Lost, "the server was stopped before it had ended"),
            (Some(Why::Released), _) => state.tally.outcome(),
            (None, cause) => state.tally.failure().cloned().unwrap_or_else(|| match cause {
                EndCause::Deadline => because(OutcomeKind::Timeout, "its time was over, or nobody used it any more"),
                _ if end.oom => because(OutcomeKind::Oom, "the sandbox used more memory than its limit"),
                _ => because(OutcomeKind::Lost, "the sandbox went away"),
            }),
        }
    }

    /// Says that its end is on record.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// Waits until its end is on record.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }
}
