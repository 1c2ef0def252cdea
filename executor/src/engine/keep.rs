//! Functions that want sandboxes to be ready for them (`min_warm`): made ahead of calls, and made anew when they end.
//!
//! ```text
//!  missing ──► room that nobody waits for ──► made, the code loaded ──► parked, as after a call
//!                 └── none: later                └── fails: later, and later still each time
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use runlet_core::backoff::Backoff;
use runlet_core::engine::Stream;
use runlet_core::name::RevisionDigest;
use runlet_core::outcome::Outcome;
use runlet_core::store::StoreError;
use runlet_core::store::function::Function;
use tokio::time::sleep;

use super::Shared;
use super::job::Job;
use super::run::Made;
use crate::admission::{FunctionKey, Kept};
use crate::pool::{Place, Warm};
use crate::session::{OutputSink, Session};

/// How often it is looked whether any are missing.
const LOOK: Duration = Duration::from_secs(1);

/// Sandboxes that are made at a time, of all functions: calls need the processors as well.
const AT_A_TIME: u32 = 4;

/// The pauses after failures of a revision: the first one, and the longest.
const AFTER_FAILURE: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(256));

/// What is known of a function that is kept warm.
#[derive(Debug)]
struct Tended {
    revision: RevisionDigest,
    making: u32,
    backoff: Backoff,
    /// Nothing is made before this moment: the last try has failed.
    rest: Option<Instant>,
}

/// The functions that are kept warm.
#[derive(Debug, Default)]
pub(super) struct Keeper(Mutex<HashMap<FunctionKey, Tended>>);

/// Whatever code writes while it is loaded for nobody goes nowhere.
struct Nowhere;

impl OutputSink for Nowhere {
    async fn write(&mut self, _: Stream, _: Bytes) {}
}

impl Keeper {
    fn lock(&self) -> MutexGuard<'_, HashMap<FunctionKey, Tended>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks after these from now on. Returns those that it has looked after and that are not wanted any more.
    fn tend(&self, kept: &HashMap<FunctionKey, Kept>) -> Vec<FunctionKey> {
        let mut tended = self.lock();
        let over = |function: &FunctionKey, tended: &mut Tended| tended.making == 0 && !kept.contains_key(function);
        let left = tended.extract_if(over).map(|(function, _)| function).collect();
        for (function, Kept { revision, .. }) in kept {
            let fresh = || Tended { revision: revision.clone(), making: 0, backoff: AFTER_FAILURE, rest: None };
            let known = tended.entry(function.clone()).or_insert_with(fresh);
            if known.revision != *revision {
                *known = Tended { making: known.making, ..fresh() };
            }
        }
        left
    }

    /// Whether one more may be made, of `missing` that are not there. It is being made from then on.
    fn begin(&self, function: &FunctionKey, missing: u32) -> bool {
        let mut tended = self.lock();
        let making: u32 = tended.values().map(|tended| tended.making).sum();
        let Some(known) = tended.get_mut(function) else { return false };
        let rests = known.rest.is_some_and(|until| Instant::now() < until);
        let may = !rests && known.making < missing && making < AT_A_TIME;
        known.making += u32::from(may);
        may
    }

    /// It was made, or it did not work out; nothing was tried: `None`.
    fn end(&self, function: &FunctionKey, worked: Option<bool>) {
        let mut tended = self.lock();
        let Some(known) = tended.get_mut(function) else { return };
        known.making = known.making.saturating_sub(1);
        match worked {
            None => {}
            Some(true) => (known.backoff, known.rest) = (AFTER_FAILURE, None),
            Some(false) => known.rest = Some(Instant::now() + known.backoff.pause()),
        }
    }
}

/// Looks after all of them until the engine ends.
pub(super) async fn keep_warm(shared: Arc<Shared>) {
    if shared.ready.subscribe().wait_for(|ready| *ready).await.is_err() {
        return;
    }
    while !shared.stopping.is_cancelled() {
        // While the database is away they stay as they are.
        if let Err(error) = shared.look_after_kept().await {
            tracing::debug!(%error, "could not ask which functions are to be kept warm");
        }
        tokio::select! {
            () = shared.stopping.cancelled() => {}
            () = sleep(LOOK) => {}
        }
    }
}

impl Shared {
    async fn look_after_kept(self: &Arc<Self>) -> Result<(), StoreError> {
        let mut wanted = Vec::new();
        for (function, aliased) in self.store.kept_warm().await? {
            let kept = Kept {
                revision: function.revision.clone(),
                least: function.manifest.min_warm,
                shared: function.manifest.concurrency > 1,
            };
            wanted.push(((function.namespace.clone(), function.name.clone()), kept, Arc::new(function), aliased));
        }
        let kept = wanted.iter().map(|(key, kept, ..)| (key.clone(), kept.clone())).collect();
        let left = self.keeper.tend(&kept);
        self.gate.keep(kept);
        for function in left {
            if let Some(current) = self.store.current(&function.0, &function.1).await? {
                self.retire_others(&function, &current.function.revision, !current.aliases.is_empty());
            }
        }
        for (key, kept, function, aliased) in wanted {
            self.retire_others(&key, &kept.revision, aliased);
            while self.keeper.begin(&key, kept.least.saturating_sub(self.gate.ready(&key, &kept))) {
                let Some(room) = self.gate.kept_room(&key, function.limits().memory.0) else {
                    self.keeper.end(&key, None);
                    break;
                };
                let (shared, key, function) = (Arc::clone(self), key.clone(), Arc::clone(&function));
                self.tasks.spawn(async move {
                    let worked = shared.make_ahead(&function, room).await;
                    if let Err(outcome) = &worked
                        && !shared.stopping.is_cancelled()
                    {
                        // Not in the words of its code, which may hold anything.
                        tracing::warn!(
                            namespace = %key.0,
                            function.name = %key.1,
                            outcome = outcome.kind.as_str(),
                            "a function could not be made ready ahead of calls; call it to see why"
                        );
                    }
                    shared.keeper.end(&key, Some(worked.is_ok()));
                });
            }
        }
        Ok(())
    }

    /// Lets sandboxes of other revisions go, unless aliases lead to them.
    fn retire_others(&self, function: &FunctionKey, current: &RevisionDigest, aliased: bool) {
        if !aliased {
            self.gate.retire(function, current);
        }
    }

    /// Makes a sandbox in which the function's code is loaded, and parks it.
    async fn make_ahead(&self, function: &Function, room: Place) -> Result<(), Outcome> {
        let job = Job::ahead(function, self.manifests.of(function));
        let Made { blank, env, .. } = self.make(&job, room.number()).await?;
        let deadline = Instant::now() + job.limits.timeout.0;
        match Session::open(blank, job.launch(&env), deadline, &self.stopping, &mut Nowhere).await {
            Ok(session) => {
                let warm = Warm { session: Box::new(session), room };
                let slots = job.manifest.concurrency;
                if slots > 1 {
                    self.pool.park_shared(warm, job.function_key(), job.sandbox_key(), slots);
                } else {
                    self.pool.park(warm, job.function_key(), job.sandbox_key());
                }
                Ok(())
            }
            Err((outcome, sandbox)) => {
                self.pool.bury(sandbox, room).await;
                Err(outcome)
            }
        }
    }
}
