//! One execution: a sandbox for it, its code, and what there is to say about its end.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use runlet_core::cause::CauseKind;
use runlet_core::clock::{self, Timestamp};
use runlet_core::execution::{Remains, StartKind, Usage};
use runlet_core::manifest::{Durability, RuntimeKind};
use runlet_core::metric::{self, Stage};
use runlet_core::outcome::{Outcome, OutcomeKind};
use runlet_core::store::ledger::{Finish, Running};
use tokio::time::Instant;

use super::Shared;
use super::job::Job;
use super::registry::{Live, Why};
use crate::admission::{Seat, Slot, Turn};
use crate::host::sandbox::{Sandbox, SandboxEnd};
use crate::lease::Leased;
use crate::output::{LogSink, LogTotals};
use crate::pool::{Handle, Place, Warm};
use crate::revisions::RevisionError;
use crate::road::Road;
use crate::session::{Blank, Invoked, Joined, Session, Spout, Terms, Ticket};

/// A sandbox for an execution.
pub(super) enum Placed {
    /// One that has served the revision before.
    Warm(Warm),
    /// A new one, and the environment of the code.
    New { made: Made, room: Place },
    /// One that it shares with others.
    Shared(Berth),
}

/// A sandbox in which none of the code has run, and the environment of the code.
pub(super) struct Made {
    pub(super) blank: Blank,
    start: StartKind,
    pub(super) env: BTreeMap<String, String>,
}

/// A place in a sandbox that several calls share.
pub(super) struct Berth {
    ticket: Ticket,
    slot: Slot<Handle>,
    start: StartKind,
}

/// The moment an execution has to end by: on the clock that timers use, and on the wall.
#[derive(Debug, Clone, Copy)]
struct Deadline {
    at: Instant,
    wall: Timestamp,
}

/// How an execution ended.
pub(super) struct Ended {
    pub(super) outcome: Outcome,
    result: Option<(Bytes, &'static str)>,
    /// Whether any of its code may have run.
    began: bool,
    /// Whether its deadline passed before it could start.
    expired: bool,
    running: Option<Running>,
    usage: Usage,
    remains: Option<Remains>,
    log: LogTotals,
    /// What the reader of a result in pieces has not taken yet.
    rest: Spout,
}

impl Ended {
    /// It ended before any of its code ran.
    pub(super) fn before(outcome: Outcome) -> Self {
        Self {
            outcome,
            result: None,
            began: false,
            expired: false,
            running: None,
            usage: Usage::default(),
            remains: None,
            log: LogTotals::default(),
            rest: Spout::closed(),
        }
    }

    /// Its deadline passed before it could start.
    pub(super) fn expired(why: String) -> Self {
        Self { expired: true, ..Self::before(Outcome::because(OutcomeKind::Cancelled, why)) }
    }

    fn after(invoked: Invoked, running: Option<Running>, rest: Spout) -> Self {
        let Invoked { outcome, result, content_type, .. } = invoked;
        let result = outcome.is_ok().then_some((result, content_type));
        Self { result, began: true, running, rest, ..Self::before(outcome) }
    }

    /// Takes out what the reader of a result in pieces has not taken yet.
    pub(super) fn and_rest(mut self) -> (Self, Spout) {
        let rest = std::mem::replace(&mut self.rest, Spout::closed());
        (self, rest)
    }

    /// Its sandbox ended with it. What it used is known if the sandbox served nobody else.
    fn and_sandbox(mut self, end: Option<SandboxEnd>, alone: bool) -> Self {
        if let Some(end) = end {
            self.usage = if alone { end.usage } else { Usage::default() };
            self.remains = Some(end.remains);
        }
        self
    }

    /// The record of it.
    pub(super) fn finish(self, job: &Job, why: Option<Why>) -> Finish {
        let outcome = match why {
            Some(Why::Stopping) if self.outcome.kind == OutcomeKind::Cancelled => {
                Outcome::because(OutcomeKind::Lost, "the server was stopped before the code had ended")
            }
            _ => self.outcome,
        };
        Finish {
            execution: job.execution,
            invocation: job.invocation,
            namespace: job.namespace.clone(),
            fence: job.fence,
            retry: job.again_after(outcome.kind, self.began),
            expired: self.expired,
            of_messages: job.cause.kind == CauseKind::Queue,
            tell: job.tells(outcome.kind),
            outcome,
            result: self.result.map(|(body, kind)| (body, kind.into())),
            usage: Usage {
                wait_us: micros(job.created_at, job.seated.get().copied()),
                start_us: job.seated.get().and_then(|seated| micros(*seated, self.running.as_ref().map(|one| one.at))),
                ..self.usage
            },
            running: self.running,
            remains: self.remains,
            log_bytes: self.log.kept,
            log_dropped: self.log.dropped,
            at: clock::now(),
        }
    }
}

/// What the outcome is when an execution is ended from outside before its code has begun.
pub(super) fn ended_early(live: &Live) -> Outcome {
    match live.why() {
        Some(Why::Cancelled) => Outcome::because(OutcomeKind::Cancelled, "it was cancelled before it had begun"),
        _ => Outcome::because(OutcomeKind::Lost, "the server was stopped before it had begun"),
    }
}

/// Microseconds between two moments, of which the second may not have come.
fn micros(from: Timestamp, to: Option<Timestamp>) -> Option<i64> {
    (to? - from).num_microseconds().map(|span| span.max(0))
}

fn lost(message: impl ToString) -> Outcome {
    Outcome::because(OutcomeKind::Lost, message.to_string())
}

impl Shared {
    /// A sandbox for the job: the one its seat names, or, if that has died meanwhile, another.
    ///
    /// # Errors
    /// The outcome of an execution that cannot start.
    pub(super) async fn place(&self, job: &Job, seat: Seat<Handle>, live: &Live) -> Result<Placed, Outcome> {
        let _timed = metric::timed(Stage::Place);
        job.seated.get_or_init(clock::now);
        let mut seat = seat;
        let room = loop {
            match seat {
                Seat::New(room) => break room,
                Seat::Parked(handle) => {
                    if let Some(mut warm) = handle.take() {
                        if warm.session.is_usable() && self.fit(job, &warm).await {
                            return Ok(Placed::Warm(warm));
                        }
                        self.pool.bury(warm.session.into_sandbox(), warm.room).await;
                    }
                }
                Seat::Shared(handle, slot) => {
                    if let Some(ticket) = handle.ticket() {
                        return Ok(Placed::Shared(Berth { ticket, slot, start: StartKind::Warm }));
                    }
                }
                Seat::Opening(room, requests, handle, slot) => {
                    let Made { blank, start, env } = self.make(job, room.number()).await?;
                    self.pool.share(blank, room, job.launch(&env), requests);
                    if let Some(ticket) = handle.ticket() {
                        return Ok(Placed::Shared(Berth { ticket, slot, start }));
                    }
                }
            }
            let until = Instant::now() + job.limits.timeout.0;
            seat = tokio::select! {
                seat = self.gate.again(job.want(), Some(until)) => seat.map_err(lost)?,
                () = live.token.cancelled() => return Err(ended_early(live)),
            };
        };
        let made = self.make(job, room.number()).await?;
        Ok(Placed::New { made, room })
    }

    /// A sandbox for the job that has been nobody's: one that was started ahead, or else a new one.
    pub(super) async fn make(&self, job: &Job, room: u64) -> Result<Made, Outcome> {
        let init_error = |why: String| Outcome::because(OutcomeKind::InitError, why);
        if let Some(missing) = runlet_runtimes::host::missing(job.manifest.runtime) {
            return Err(init_error(missing));
        }
        let env = job.environment(&*self.options.secrets)?;
        match self.revisions.ensure(&job.namespace, &job.revision).await {
            Ok(()) => {}
            Err(error @ RevisionError::Store(..)) => return Err(lost(error)),
            Err(error) => return Err(init_error(error.to_string())),
        }
        if let Some(blank) = self.stems.specialised(job.manifest.runtime, &job.revision, job.limits).await {
            self.hold(job, room, blank.sandbox().reins()).await;
            // What it has used so far is nobody's.
            let _ = blank.sandbox().bill();
            return Ok(Made { blank, start: StartKind::Stem, env });
        }
        let sandbox = self.host.create(job.sandbox()).await.map_err(lost)?;
        self.hold(job, room, sandbox.reins()).await;
        Ok(Made { blank: Blank::Bare(sandbox), start: StartKind::Cold, env })
    }

    /// Gives back a sandbox in which nothing was run.
    pub(super) async fn unplace(&self, job: &Job, placed: Placed) {
        match placed {
            Placed::Warm(warm) => self.pool.park(warm, job.function_key(), job.sandbox_key()),
            Placed::New { made, room } => {
                self.pool.bury(made.blank.into_sandbox(), room).await;
            }
            Placed::Shared(berth) => drop(berth),
        }
    }

    /// Runs the job in its sandbox. The turn ends with the code, the sandbox goes back to the pool or is gone; all
    /// output is on record when this returns.
    pub(super) async fn execute(&self, job: &Job, placed: Placed, turn: Turn<Handle>, live: &Live) -> Ended {
        let _timed = metric::timed(Stage::Run);
        let timeout = job.limits.timeout.0;
        let deadline = Deadline { at: Instant::now() + timeout, wall: clock::now() + timeout };
        let owner = (job.namespace.clone(), job.execution);
        let mut sink = LogSink::new(self.road(job), self.tasks.clone(), owner, self.options.max_log, deadline.at);
        let mut placed = placed;
        let ended = loop {
            match placed {
                Placed::Warm(warm) => {
                    if let Some(ended) = self.run_in(job, warm, job.start_again(), deadline, live, &mut sink).await {
                        break ended;
                    }
                }
                Placed::Shared(berth) => break self.run_shared(job, berth, deadline, live, &mut sink).await,
                Placed::New { made, room } => {
                    if let Some(ended) = self.run_new(job, made, room, deadline, live, &mut sink).await {
                        break ended;
                    }
                }
            }
            // It had died while it waited, which only this one has found out.
            placed = match self.place_again(job, deadline, live).await {
                Ok(placed) => placed,
                Err(outcome) => break Ended::before(outcome),
            };
        };
        drop(turn);
        Ended { log: sink.finish().await, ..ended }
    }

    /// The first call in a sandbox that is to become the revision's. `None`: it was a stem that was gone before the code had the event.
    async fn run_new(
        &self,
        job: &Job,
        made: Made,
        room: Place,
        deadline: Deadline,
        live: &Live,
        sink: &mut LogSink,
    ) -> Option<Ended> {
        let Made { blank, start, env } = made;
        if job.manifest.runtime == RuntimeKind::Exec {
            if start == StartKind::Stem && blank.sandbox().ended().is_some() {
                self.bury_behind(blank.into_sandbox(), room);
                return None;
            }
            let leased = Leased::new(blank.into_sandbox(), room);
            return Some(self.run_program(job, (leased, start), &env, deadline, live, sink).await);
        }
        let launch = job.launch(&env);
        match Session::open(blank, launch, deadline.at.into_std(), &live.token, sink).await {
            Ok(session) => {
                let warm = Warm { session: Box::new(session), room };
                let ended = self.run_in(job, warm, start, deadline, live, sink).await;
                Some(ended.unwrap_or_else(|| Ended::before(lost("the sandbox ended right after its start"))))
            }
            Err((outcome, sandbox)) if start == StartKind::Stem && outcome.kind == OutcomeKind::Lost => {
                tracing::debug!(sandbox.id = sandbox.name(), ?outcome, "a stem was gone");
                self.bury_behind(sandbox, room);
                None
            }
            Err((outcome, sandbox)) => {
                let end = self.pool.bury(sandbox, room).await;
                Some(Ended { began: true, ..Ended::before(outcome) }.and_sandbox(end, true))
            }
        }
    }

    /// Buries a sandbox that nobody waits for.
    fn bury_behind(&self, sandbox: Sandbox, room: Place) {
        let pool = self.pool.clone();
        self.tasks.spawn(async move { pool.bury(sandbox, room).await });
    }

    /// One call of a runner, which is kept for the next if that is allowed. `None`: a warm one had gone before it had read the call, and
    /// none of the code ran.
    async fn run_in(
        &self,
        job: &Job,
        mut warm: Warm,
        start: StartKind,
        deadline: Deadline,
        live: &Live,
        sink: &mut LogSink,
    ) -> Option<Ended> {
        let running = self.note(job, start, warm.session.sandbox().name());
        let (call, max) = (job.call(deadline.wall), self.options.max_result);
        let mut spout = job.spout();
        let invoked = warm.session.invoke(call, deadline.at.into_std(), max, &live.token, sink, &mut spout).await;
        // A runner of our own begins only when it has the whole call.
        if invoked.unread && start == job.start_again() && job.manifest.runtime != RuntimeKind::Custom {
            self.bury_behind(warm.session.into_sandbox(), warm.room);
            return None;
        }
        let keep = invoked.reusable && job.is_warm();
        let mut ended = Ended::after(invoked, Some(running), spout);
        if keep {
            ended.usage = warm.session.sandbox().bill();
            self.pool.park(warm, job.function_key(), job.sandbox_key());
            return Some(ended);
        }
        let sandbox = Arc::new(warm.session.into_sandbox());
        let end = self.pool.bury(Arc::clone(&sandbox), warm.room).await;
        let total = end.as_ref().map(|end| end.usage).unwrap_or_default();
        let begun_before = start == job.start_again() || start == StartKind::Stem;
        let ended = ended.and_sandbox(end, !begun_before);
        Some(match sandbox.meter() {
            Some(meter) if begun_before => Ended { usage: meter.rest(total), ..ended },
            _ => ended,
        })
    }

    /// One call in a sandbox that it shares with others. What it used cannot be told apart from what they used.
    async fn run_shared(&self, job: &Job, berth: Berth, deadline: Deadline, live: &Live, sink: &mut LogSink) -> Ended {
        let (mut berth, mut spout, mut running) = (berth, job.spout(), None);
        loop {
            let Berth { ticket, slot, start } = berth;
            let max_result = self.options.max_result;
            let terms = Terms { deadline: deadline.at.into_std(), max_result, cancel: &live.token };
            let taken = |sandbox: &str| running = Some(self.note(job, start, sandbox));
            let call = job.call(deadline.wall);
            match ticket.call(call, Box::new(slot), terms, sink, &mut spout, taken).await {
                Joined::Done(invoked) => return Ended::after(invoked, running, spout),
                Joined::NotTaken => drop(ticket),
            }
            // The sandbox ended before the call came to it.
            berth = match self.another_berth(job, deadline, live).await {
                Ok(berth) => berth,
                Err(outcome) => return Ended::before(outcome),
            };
        }
    }

    /// Another place for a job that has its turn.
    async fn place_again(&self, job: &Job, deadline: Deadline, live: &Live) -> Result<Placed, Outcome> {
        let seat = tokio::select! {
            seat = self.gate.again(job.want(), Some(deadline.at)) => seat.map_err(lost)?,
            () = live.token.cancelled() => return Err(ended_early(live)),
        };
        self.place(job, seat, live).await
    }

    async fn another_berth(&self, job: &Job, deadline: Deadline, live: &Live) -> Result<Berth, Outcome> {
        match self.place_again(job, deadline, live).await? {
            Placed::Shared(berth) => Ok(berth),
            placed => {
                self.unplace(job, placed).await;
                Err(lost("it found no sandbox to share"))
            }
        }
    }

    /// A program that runs once: lease, exec, release.
    async fn run_program(
        &self,
        job: &Job,
        (leased, start): (Leased, StartKind),
        env: &BTreeMap<String, String>,
        deadline: Deadline,
        live: &Live,
        sink: &mut LogSink,
    ) -> Ended {
        let running = self.note(job, start, leased.name());
        let bounds = (deadline.at, self.options.max_result);
        let program = job.program(env, deadline.wall);
        let invoked = leased.run(program, job.stdin(), bounds, &live.token, sink).await;
        let end = leased.release(&self.pool).await;
        Ended::after(invoked, Some(running), Spout::closed()).and_sandbox(end, true)
    }

    /// The road of its history.
    pub(super) fn road(&self, job: &Job) -> Road {
        if job.fence.is_none() && job.manifest.durability == Durability::Spooled {
            Road::Spooled(self.spool.clone(), self.ledger.clone())
        } else {
            Road::Committed(self.store.clone(), self.ledger.clone())
        }
    }

    /// Says that the code is given the event now.
    fn note(&self, job: &Job, start: StartKind, sandbox: &str) -> Running {
        let running = Running { execution: job.execution, start, sandbox: sandbox.to_owned(), at: clock::now() };
        metric::started(start);
        self.ledger.running(running.clone());
        running
    }
}
