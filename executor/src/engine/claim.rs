//! Queued work that this server has claimed.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use bytes::Bytes;
use runlet_core::clock;
use runlet_core::metric::{self, Stage};
use runlet_core::outcome::{Outcome, OutcomeKind};
use runlet_core::store::queue::Claimed;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::Shared;
use super::job::Job;
use super::registry::{Live, Why};
use super::run::{Ended, ended_early};
use crate::admission::{Refused, Seat, Turn};
use crate::pool::Handle;

/// Runs claimed work to its end and puts that on record, under the fence of the claim.
/// Keeps `transit` until the work is at the gate, or never will be.
pub(crate) async fn run_claim(shared: Arc<Shared>, claimed: Claimed, transit: TaskTrackerToken) {
    let live = shared.registry.enter(claimed.invocation, claimed.execution, Some(claimed.fence));
    shared.ledger.claimed(&claimed);
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
    let (limits, edition) = shared.limits(&claimed.namespace, &claimed.function, &manifest).await;
    let until =
        claimed.deadline.map(|deadline| Instant::now() + (deadline - clock::now()).to_std().unwrap_or_default());
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
    let ended = match missing {
        None => shared.run_job(&job, &live, until, transit).await,
        Some(missing) => Ended::before(Outcome::because(OutcomeKind::InitError, format!("the payload: {missing}"))),
    };
    if live.why() == Some(Why::Disowned) {
        return;
    }
    live.set_ending();
    let finish = ended.finish(&job, live.why());
    shared.log_end(&job, &finish);
    match shared.road(&job).finish(&finish, None, &shared.ended).await {
        Ok(_) => shared.bell.ring(job.invocation),
        Err(error) => {
            tracing::error!(execution.id = %job.execution, %error, "the end of the execution is not on record");
        }
    }
}

impl Shared {
    async fn run_job(&self, job: &Job, live: &Live, until: Option<Instant>, transit: TaskTrackerToken) -> Ended {
        let (turn, seat) = match self.admit(job, live, until, transit).await {
            Ok(granted) => granted,
            Err(ended) => return *ended,
        };
        match self.place(job, seat, live).await {
            Ok(placed) => self.execute(job, placed, turn, live).await,
            Err(outcome) => Ended::before(outcome),
        }
    }

    /// Waits for a turn and a place, for as long as it takes: the work is accepted. Past its deadline it does not start.
    async fn admit(
        &self,
        job: &Job,
        live: &Live,
        until: Option<Instant>,
        transit: TaskTrackerToken,
    ) -> Result<(Turn<Handle>, Seat<Handle>), Box<Ended>> {
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
