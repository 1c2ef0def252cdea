//! The loop of a service that looks after something in the ledger: it works, sleeps until its next moment or until it is told of
//! something, and goes on after a failure.

use std::time::Duration;

use runlet_core::store::queue::{Wakeup, Wakeups};
use runlet_core::store::{Store, StoreError};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// Pause after a failure of the database.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// Who looks after something.
pub(crate) trait Tend {
    /// After what.
    const WHAT: &'static str;

    /// Does all that is to be done now.
    fn work(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// When there is something to do without being told.
    fn wake_at(&self) -> Instant;

    /// Takes note of what it is told.
    fn hear(&mut self, wakeup: Wakeup);
}

/// Looks after it until `stop`. What is to be done after that is the next server's.
pub(crate) async fn tend<T: Tend>(mut one: T, store: Store, stop: CancellationToken) {
    let Some(mut wakeups) = listen::<T>(&store, &stop).await else { return };
    while !stop.is_cancelled() {
        if let Err(error) = one.work().await {
            tracing::warn!(%error, "could not look after {}; trying again", T::WHAT);
            pause(&stop).await;
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = sleep_until(one.wake_at()) => {}
            wakeup = wakeups.next() => one.hear(wakeup),
        }
    }
}

async fn listen<T: Tend>(store: &Store, stop: &CancellationToken) -> Option<Wakeups> {
    loop {
        match store.wakeups().await {
            Ok(wakeups) => return Some(wakeups),
            Err(error) => tracing::warn!(%error, "could not listen for changes of {}", T::WHAT),
        }
        pause(stop).await;
        if stop.is_cancelled() {
            return None;
        }
    }
}

async fn pause(stop: &CancellationToken) {
    tokio::select! {
        () = sleep(AFTER_FAILURE) => {}
        () = stop.cancelled() => {}
    }
}
