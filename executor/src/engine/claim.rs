//! Queued work that this server has claimed.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use bytes::Bytes;
use runlet_core::clock;
use runlet_core::limits::Limits;
use runlet_core::manifest::Manifest;
use runlet_core::metric::{self, Stage};
use runlet_core::outcome::{Outcome, OutcomeKind};
use runlet_core::store::queue::Claimed;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::Shared;
use super::job::Job;
use super::registry::{Entry, Live, Why};
use super::run::{Ended, ended_early};
use crate::admission::{Refused, Seat, Turn};
use crate::pool::Handle;

/// A turn and a place.
pub(super) type Granted = (Turn<Handle>, Seat<Handle>);

/// Runs claimed work to its end and puts that on record, under the fence of the claim.
/// Keeps `transit` until the work is at the gate, or never will be.
pub(crate) async fn run_claim(shared: Arc<Shared>, claimed: Claimed, transit: TaskTrackerToken) {
    let live = shared.enter(&claimed);
    let manifest = shared.manifests.get(&claimed.namespace, &claimed.revision).await;
    let manifest = match manifest {
        Ok(Some(manifest)) => manifest,
        other => {
            // Without its manifest there is no job; the claim is left to expire, which makes it lost.
            let error = other.err().map(|error| error.to_string());
            tracing::error!(
                invocation.id = %claimed.invocation,
                revision = %claimed.revision,
                error,
                "the revision of claimed work could not be read"
            );
            return;
        }
    };
    let limits = shared.limits(&claimed.namespace, &claimed.function, &manifest).await;
    let until =
        claimed.deadline.map(|deadline| Instant::now() + (deadline - clock::now()).to_std().unwrap_or_default());
    let (job, missing) = job(claimed, manifest, limits);
    let ended = match missing {
        None => match shared.admit(&job, &live, until, transit).await {
            Ok(granted) => shared.run(&job, &live, granted).await,
            Err(ended) => *ended,
        },
        Some(missing) => Ended::before(Outcome::because(OutcomeKind::InitError, format!("the payload: {missing}"))),
    };
    shared.conclude(&job, &live, ended).await;
}

/// The same for work that has its turn and a place already.
pub(super) async fn run_granted(
    shared: Arc<Shared>,
    claimed: Claimed,
    manifest: Arc<Manifest>,
    limits: (Limits, i64),
    live: Entry,
    granted: Granted,
) {
    drop(metric::timed(Stage::Admission));
    let (job, _) = job(claimed, manifest, limits);
    let ended = shared.run(&job, &live, granted).await;
    shared.conclude(&job, &live, ended).await;
}

/// The job of a claim; and why its payload is missing, if it is.
fn job(claimed: Claimed, manifest: Arc<Manifest>, (limits, edition): (Limits, i64)) -> (Job, Option<String>) {
    let (payload, missing) = match claimed.payload {
        Ok(payload) => (payload, None),
        Err(missing) => (Bytes::new(), Some(missing)),
    };
    let job = Job {
        namespace: claimed.namespace,
        function: claimed.function,
        revision: claimed.revision,
        manifest,
        invocation: claimed.invocation,
        execution: claimed.execution,
        attempt: claimed.attempt,
        priority: claimed.priority,
        limits,
        edition,
        created_at: claimed.due_at,
        seated: OnceLock::new(),
        fence: Some(claimed.fence),
        cause: claimed.cause,
        payload,
        content_type: claimed.content_type,
        pieces: None,
    };
    (job, missing)
}

impl Shared {
    /// Reads the functions and manifests of what was claimed, each once and not by each piece of work. What cannot be read now is tried
    /// again by whoever needs it.
    pub(crate) async fn read_ahead(&self, claimed: &[Claimed]) {
        for claim in claimed {
            let read = async {
                self.manifests.get(&claim.namespace, &claim.revision).await?;
                self.store.current(&claim.namespace, &claim.function).await
            };
            if let Err(error) = read.await {
                tracing::debug!(%error, "claimed work could not be read about ahead");
                return;
            }
        }
    }

    /// From now on the claim is renewed, can be cancelled, and is noted if it takes long.
    pub(super) fn enter(&self, claimed: &Claimed) -> Entry {
        self.ledger.claimed(claimed);
        self.registry.enter(claimed.invocation, claimed.execution, Some(claimed.fence))
    }

    async fn run(&self, job: &Job, live: &Live, (turn, seat): Granted) -> Ended {
        match self.place(job, seat, live).await {
            Ok(placed) => self.execute(job, placed, turn, live).await,
            Err(outcome) => Ended::before(outcome),
        }
    }

    /// Puts the end of claimed work on record, if that is still ours to do.
    async fn conclude(&self, job: &Job, live: &Live, ended: Ended) {
        if live.why() == Some(Why::Disowned) {
            return;
        }
        live.set_ending();
        let finish = ended.finish(job, live.why());
        self.log_end(job, &finish);
        match self.road(job).finish(&finish, None, &self.ended).await {
            Ok(_) => self.bell.ring(job.invocation),
            Err(error) => {
                tracing::error!(execution.id = %job.execution, %error, "the end of the execution is not on record");
            }
        }
    }

    /// Waits for a turn and a place, for as long as it takes: the work is accepted. Past its deadline it does not start.
    async fn admit(
        &self,
        job: &Job,
        live: &Live,
        until: Option<Instant>,
        transit: TaskTrackerToken,
    ) -> Result<Granted, Box<Ended>> {
        let _timed = metric::timed(Stage::Admission);
        let mut granted = pin!(self.gate.acquire(job.want(), until, false));
        let first = poll_fn(|context| Poll::Ready(granted.as_mut().poll(context))).await;
        // Now it is at the gate, and counted there.
        drop(transit);
        let granted = match first {
            Poll::Ready(granted) => granted,
            Poll::Pending => tokio::select! {
                granted = granted => granted,
                () = live.token.cancelled() => return Err(Box::new(Ended::before(ended_early(live)))),
            },
        };
        granted.map_err(|refused| {
            Box::new(match refused {
                Refused::Closed => Ended::before(ended_early(live)),
                Refused::NoTurn(_) | Refused::NoRoom => {
                    Ended::expired(format!("its deadline passed before it could start: {refused}"))
                }
                refused => Ended::before(Outcome::because(OutcomeKind::InitError, refused.to_string())),
            })
        })
    }
}
