//! Synchronous calls.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, MaybeDone, maybe_done};
use futures_util::poll;
use runlet_core::clock;
use runlet_core::engine::{EngineError, NewInvocation, Reply, ResultPiece};
use runlet_core::id::{ExecutionId, InvocationId};
use runlet_core::manifest::Manifest;
use runlet_core::metric::{self, Stage};
use runlet_core::name::RevisionDigest;
use runlet_core::outcome::{Outcome, OutcomeKind};
use runlet_core::settings::Settings;
use runlet_core::store::ledger::{CallStart, Finish};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::Shared;
use super::detach::{Detached, Left};
use super::job::Job;
use super::registry::Live;
use super::run::{Ended, Placed, ended_early};
use crate::admission::{Refused, Seat, Turn};
use crate::pool::Handle;
use crate::road::Road;
use crate::session::Spout;

/// How long a call waits for a server that has just started.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// How long one who called waits for the end to go on record while the database is down.
const RECORD_PATIENCE: Duration = Duration::from_secs(5);

/// How long an end is tried to be put on record for a call that may have a start.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(30);

/// A turn and a place for it.
type Seated = (Turn<Handle>, Seat<Handle>);

/// The wait for them: asked once before anything is on record.
type Admission = Pin<Box<MaybeDone<BoxFuture<'static, Result<Seated, Refused>>>>>;

/// A call that was on record and got no turn.
struct Unseated {
    outcome: Outcome,
    /// What its caller is told instead of the outcome.
    told: Option<EngineError>,
}

impl From<Refused> for EngineError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::TooLarge { .. } => Self::Invalid(refused.to_string()),
            Refused::Full(_) | Refused::NoTurn(_) | Refused::NoRoom => Self::QueueFull(refused.to_string()),
            Refused::Closed => Self::Stopping,
        }
    }
}

impl Shared {
    /// Runs once, now. Once it has begun it goes on to its end, whether or not the caller waits for that.
    pub(super) async fn call(
        self: &Arc<Self>,
        new: NewInvocation,
        pieces: Option<mpsc::Sender<ResultPiece>>,
    ) -> Result<Reply, EngineError> {
        self.open_for_work().await?;
        let (revision, manifest, settings) = self.resolve(&new).await?;
        let job = Job {
            namespace: new.namespace.clone(),
            function: new.function.clone(),
            revision,
            invocation: InvocationId::new(),
            execution: ExecutionId::new(),
            attempt: 1,
            priority: new.priority,
            limits: settings.over(manifest.limits, manifest.runtime),
            edition: settings.edition(),
            created_at: clock::now(),
            seated: OnceLock::new(),
            fence: None,
            cause: new.cause.clone(),
            payload: new.payload.clone(),
            content_type: new.content_type.clone(),
            pieces,
            manifest,
        };
        let mut patience = job.limits.timeout.0;
        if let Some(deadline) = new.deadline {
            let left = (deadline - clock::now()).to_std().ok().filter(|left| !left.is_zero());
            patience = left.ok_or_else(|| EngineError::Invalid("its deadline has passed".to_owned()))?.min(patience);
        }
        let (want, until, shared) = (job.want(), Instant::now() + patience, Arc::clone(self));
        let mut admission: Admission =
            Box::pin(maybe_done(async move { shared.gate.acquire(want, Some(until), true).await }.boxed()));
        // A call that is refused at once leaves no trace; any other is on record while it waits for its turn.
        let _ = poll!(&mut admission);
        if let Some(Err(refused)) = admission.as_mut().output_mut() {
            return Err(refused.clone().into());
        }
        Detached::new(&self.tasks, |left| Arc::clone(self).run_call(job, new, admission, left)).await
    }

    /// Whether new work may begin.
    pub(super) async fn open_for_work(&self) -> Result<(), EngineError> {
        if self.stopping.is_cancelled() {
            return Err(EngineError::Stopping);
        }
        self.options.disk.check()?;
        if *self.ready.borrow() {
            return Ok(());
        }
        let mut ready = self.ready.subscribe();
        match timeout(START_PATIENCE, ready.wait_for(|ready| *ready)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(EngineError::QueueFull("the server is starting and waits for its database".to_owned())),
        }
    }

    /// The revision to run, what it says, and what is set for the function.
    async fn resolve(&self, new: &NewInvocation) -> Result<(RevisionDigest, Arc<Manifest>, Settings), EngineError> {
        let missing = |what, name: String| EngineError::NotFound { what, name, namespace: new.namespace.clone() };
        let Some(digest) = &new.revision else {
            let current = self.store.current(&new.namespace, &new.function).await?;
            let current = current.ok_or_else(|| missing("function", new.function.to_string()))?;
            let function = &current.function;
            // Behind an alias, sandboxes of other revisions are in use as well.
            if current.aliases.is_empty() {
                self.gate.retire(&(new.namespace.clone(), new.function.clone()), &function.revision);
            }
            return Ok((function.revision.clone(), self.manifests.of(function), function.settings));
        };
        let manifest = self.manifests.get(&new.namespace, digest).await?;
        let manifest = manifest.filter(|manifest| manifest.name == new.function);
        let manifest = manifest.ok_or_else(|| missing("revision", digest.to_string()))?;
        Ok((digest.clone(), manifest, self.settings(&new.namespace, &new.function).await))
    }

    async fn run_call(
        self: Arc<Self>,
        job: Job,
        new: NewInvocation,
        admission: Admission,
        mut left: Left,
    ) -> Result<Reply, EngineError> {
        let live = self.registry.enter(job.invocation, job.execution, None);
        let start = CallStart {
            invocation: job.invocation,
            execution: job.execution,
            call: new,
            revision: job.revision.clone(),
            reset: job.manifest.reset,
            at: job.created_at,
        };
        let road = self.road(&job);
        let seated = async {
            let (turn, seat) = self.turn(admission, &live, &mut left).await?;
            Ok((turn, self.place(&job, seat, &live).await))
        };
        // No code of the function runs before its start is on record.
        let seated = match &road {
            // A file takes it at once; what it refuses is not in it, and neither waits nor has a sandbox made.
            Road::Spooled(spool, _) => {
                spool.start(&start)?;
                seated.await
            }
            // It waits for its turn and its sandbox is made meanwhile.
            Road::Committed(_, ledger) => {
                let (started, seated) = tokio::join!(ledger.start(start), seated);
                if let Err(error) = started {
                    drop(live);
                    let placed = seated.ok().map(|(_, placed)| placed);
                    self.tasks.spawn(Arc::clone(&self).never_started(job, road, placed));
                    return Err(error.into());
                }
                seated
            }
        };
        let (ended, refused) = match seated {
            Ok((turn, Ok(placed))) => (self.execute(&job, placed, turn, &live).await, None),
            Ok((_, Err(outcome))) => (Ended::before(outcome), None),
            Err(Unseated { outcome, told }) => (Ended::before(outcome), told),
        };
        let (ended, rest) = ended.and_rest();
        let finish = ended.finish(&job, live.why());
        self.log_end(&job, &finish);
        let answer = self.answer(&job, road, finish, refused).await;
        self.bell.ring(job.invocation);
        drop(live);
        self.see_off(rest, answer.as_ref().is_ok_and(|reply| reply.outcome.is_ok())).await;
        answer
    }

    /// Gives the reader of a result in pieces what is left of it, and the end, if it is `whole`.
    async fn see_off(&self, rest: Spout, whole: bool) {
        tokio::select! {
            () = rest.finish(whole) => {}
            () = self.ended.cancelled() => {}
        }
    }

    /// Waits for the turn of a call. One whose caller goes away before it is dropped from the queue.
    async fn turn(&self, admission: Admission, live: &Live, left: &mut Left) -> Result<Seated, Unseated> {
        let _timed = metric::timed(Stage::Admission);
        let mut admission = admission;
        let admitted = tokio::select! {
            () = &mut admission => admission.as_mut().take_output(),
            () = live.token.cancelled() => return Err(Unseated { outcome: ended_early(live), told: None }),
            _ = left => {
                let outcome = Outcome::because(OutcomeKind::Cancelled, "the caller went away before it had begun");
                return Err(Unseated { outcome, told: None });
            }
        };
        // `None` would be an output that was taken before.
        admitted.unwrap_or(Err(Refused::Closed)).map_err(|refused| {
            let outcome = Outcome::because(OutcomeKind::Cancelled, format!("{refused}; it was not run"));
            Unseated { outcome, told: Some(refused.into()) }
        })
    }

    /// The start is not known to be on record. It may be all the same, if only the answer was lost: then it gets an end.
    async fn never_started(self: Arc<Self>, job: Job, road: Road, placed: Option<Result<Placed, Outcome>>) {
        if let Some(Ok(placed)) = placed {
            self.unplace(&job, placed).await;
        }
        let outcome = Outcome::because(OutcomeKind::Lost, "the database did not confirm its start; it was not run");
        let finish = Ended::before(outcome).finish(&job, None);
        if let Err(error) = road.finish(&finish, Some(CONFIRM_PATIENCE), &self.ended).await {
            tracing::debug!(execution.id = %job.execution, %error, "whether the call is on record is not known");
        }
    }

    /// The answer for the caller, once the end is on record. If that takes too long the caller is told so, and it goes on.
    /// One who was refused is told the reason instead of the outcome.
    async fn answer(
        &self,
        job: &Job,
        road: Road,
        finish: Finish,
        refused: Option<EngineError>,
    ) -> Result<Reply, EngineError> {
        match road.finish(&finish, Some(RECORD_PATIENCE), &self.ended).await {
            Ok(written) => {
                if let Some(refused) = refused {
                    return Err(refused);
                }
                if written || self.is_on_record(job, &finish).await {
                    return Ok(reply(finish));
                }
                Err(EngineError::SandboxLost("the execution was declared lost before it had ended".to_owned()))
            }
            Err(error) => {
                let ended = self.ended.clone();
                self.tasks.spawn(async move {
                    if let Err(error) = road.finish(&finish, None, &ended).await {
                        tracing::error!(execution.id = %finish.execution, %error, "the end of the execution is not on record");
                    }
                });
                Err(error.into())
            }
        }
    }

    /// Whether the end that is on record is this one: it is when the answer to a first try was lost on its way.
    async fn is_on_record(&self, job: &Job, finish: &Finish) -> bool {
        let found = self.store.execution(&job.namespace, job.execution).await;
        found.is_ok_and(|found| {
            found.and_then(|execution| execution.outcome).is_some_and(|on_record| on_record.kind == finish.outcome.kind)
        })
    }

    /// One line per execution.
    pub(super) fn log_end(&self, job: &Job, finish: &Finish) {
        metric::ended(&job.namespace, &job.function, finish.outcome.kind);
        let started = finish.running.as_ref();
        tracing::info!(
            namespace = %job.namespace,
            function.name = %job.function,
            invocation.id = %job.invocation,
            execution.id = %job.execution,
            trace.id = job.cause.trace.as_ref().map(|trace| trace.parent.trace_id()),
            sandbox.id = started.map(|running| running.sandbox.as_str()),
            start = started.map(|running| running.start.as_str()),
            attempt = job.attempt,
            outcome = %finish.outcome.kind,
            duration_ms = started.map(|running| (finish.at - running.at).num_milliseconds()),
            "the execution has ended"
        );
    }
}

fn reply(finish: Finish) -> Reply {
    let (result, content_type) = finish.result.unwrap_or((bytes::Bytes::new(), "application/json".into()));
    Reply { invocation: finish.invocation, execution: finish.execution, outcome: finish.outcome, result, content_type }
}
