//! What the engine does besides executing: clearing up at the start, listening, renewing its claims, ending dead ones,
//! making partitions and removing old ones. Each is a loop that can be run again at any time and ends with the engine.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use runlet_core::clock;
use runlet_core::store::queue::Wakeup;
use runlet_core::store::retention::Removed;
use tokio::time::sleep;

use super::Shared;
use super::keep::keep_warm;
use crate::dispatch;

/// Pause after a failure of the database.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// How often partitions are made and removed; they are made days ahead.
const PARTITIONS: Duration = Duration::from_secs(3600);

pub(super) fn start(shared: &Arc<Shared>) {
    let boot = Arc::clone(shared);
    shared.tasks.spawn(async move {
        if boot.clear_up().await {
            dispatch::run(boot).await;
        }
    });
    spawn(shared, listen);
    spawn(shared, renew);
    spawn(shared, reap);
    spawn(shared, partitions);
    spawn(shared, stems);
    spawn(shared, keep_warm);
}

/// Runs a service until the engine has ended.
fn spawn<F: Future<Output = ()> + Send + 'static>(shared: &Arc<Shared>, service: fn(Arc<Shared>) -> F) {
    let (ended, service) = (shared.ended.clone(), service(Arc::clone(shared)));
    shared.tasks.spawn(async move {
        tokio::select! {
            () = ended.cancelled() => {}
            () = service => {}
        }
    });
}

impl Shared {
    /// Declares lost what an earlier life of this server left; only then may anything new begin. `false` if the server
    /// is stopped before that.
    async fn clear_up(&self) -> bool {
        self.revisions.tidy().await;
        // What has ended is not lost, even if its end was still in the spool.
        tokio::select! {
            () = self.spool.replayed() => {}
            () = self.stopping.cancelled() => return false,
        }
        loop {
            match self.store.reconcile(&self.options.server).await {
                Ok(0) => break,
                Ok(lost) => {
                    tracing::warn!(lost, "executions of an earlier life of this server are lost");
                    break;
                }
                Err(error) => tracing::warn!(%error, "could not look for executions of an earlier life"),
            }
            tokio::select! {
                () = sleep(AFTER_FAILURE) => {}
                () = self.stopping.cancelled() => return false,
            }
        }
        self.ready.send_replace(true);
        true
    }
}

async fn listen(shared: Arc<Shared>) {
    loop {
        let mut wakeups = match shared.store.wakeups().await {
            Ok(wakeups) => wakeups,
            Err(error) => {
                tracing::warn!(%error, "could not listen for work; it is looked for all the same");
                sleep(AFTER_FAILURE).await;
                continue;
            }
        };
        loop {
            match wakeups.next().await {
                Wakeup::Work => {
                    shared.nothing_waits.store(false, Ordering::Release);
                    shared.nudge.notify_one();
                }
                Wakeup::Cancel(invocation) => shared.cancel_here(invocation),
                Wakeup::Done(invocation) => shared.bell.ring(invocation),
                Wakeup::Schedules | Wakeup::Messages(..) => {}
            }
        }
    }
}

/// Keeps our claims ours. One that is not any more has been given to somebody else: it is killed here.
async fn renew(shared: Arc<Shared>) {
    loop {
        sleep(shared.options.lease / 3).await;
        let fences = shared.registry.fences();
        if fences.is_empty() {
            continue;
        }
        match shared.store.heartbeat(&shared.options.server, &fences, shared.options.lease).await {
            Ok(ours) => {
                let ours: HashSet<i64> = ours.into_iter().collect();
                let lost: Vec<i64> = fences.into_iter().filter(|fence| !ours.contains(fence)).collect();
                shared.registry.disown(&lost);
            }
            Err(error) => tracing::warn!(claims = fences.len(), %error, "could not renew claims"),
        }
    }
}

/// Ends claims of servers that are dead.
async fn reap(shared: Arc<Shared>) {
    loop {
        sleep(shared.options.lease / 2).await;
        match shared.store.reap_expired().await {
            Ok(expired) => {
                for one in expired {
                    let (invocation, execution) = (one.invocation, one.execution);
                    tracing::warn!(invocation.id = %invocation, execution.id = %execution, retried = one.retried, "a claim has expired");
                    if one.retried {
                        shared.nudge.notify_one();
                    } else {
                        shared.bell.ring(invocation);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "could not look for expired claims"),
        }
    }
}

/// Starts sandboxes ahead, once nothing of an earlier life is in the way.
async fn stems(shared: Arc<Shared>) {
    if shared.ready.subscribe().wait_for(|ready| *ready).await.is_ok() {
        shared.stems.keep_full(&shared.stopping).await;
    }
}

/// Makes the days to come and removes those that nobody wants any more.
async fn partitions(shared: Arc<Shared>) {
    loop {
        while let Err(error) = shared.store.make_partitions(clock::now()).await {
            tracing::warn!(%error, "could not make partitions");
            sleep(AFTER_FAILURE * 60).await;
        }
        match shared.store.retain(&shared.options.retention, clock::now()).await {
            Ok(Removed { days: 0, rows: 0, shelves: 0 }) => {}
            Ok(Removed { days, rows, shelves }) => tracing::info!(days, rows, shelves, "old history was removed"),
            Err(error) => tracing::warn!(%error, "old history could not be removed; it is tried again in an hour"),
        }
        sleep(PARTITIONS).await;
    }
}
