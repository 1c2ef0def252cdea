//! The dispatcher: takes queued work from the store when, and only when, it could start here.
//!
//! It looks when somebody says that there is work, when something came free after it had to leave work behind, and
//! once in a while in any case: no wake-up has to arrive for work to be done.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use runlet_core::store::StoreError;
use runlet_core::store::queue::{Claims, Room};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::TaskTracker;

use crate::admission::{Dealt, FunctionShare};
use crate::engine::{Shared, run_claim};

/// Most claims at a time.
const MOST: u32 = 32;

/// After a look in vain, what comes free does not cause another one for so long; twice as long after each further one.
const IN_VAIN: Duration = Duration::from_millis(1);

/// How often that doubles at most.
const DOUBLINGS: u32 = 6;

/// About how long a claim takes: turns that end within it are free when it is there.
const CLAIM: Duration = Duration::from_millis(3);

/// How often a turn may end in the time of a claim, as far as claims count on it.
const OFTEN: u32 = 4;

/// What a look at the queue has found.
enum Found {
    /// Nothing that is due.
    Nothing,
    /// Work, as much as was asked for: there may be more that can start now.
    Plenty,
    /// Work, or no room to look for any: there may be more, once something is free.
    Some,
    /// Only what cannot start here now.
    InVain,
}

/// Looks in vain since the last one that was not.
#[derive(Debug, Default)]
struct InVain(u32);

impl InVain {
    /// How long what comes free does not cause another look; `None`: it does not at all.
    fn pause(&mut self, found: &Found) -> Option<Duration> {
        let looks = std::mem::take(&mut self.0);
        match found {
            Found::Nothing => None,
            Found::Plenty | Found::Some => Some(Duration::ZERO),
            Found::InVain => {
                self.0 = DOUBLINGS.min(looks + 1);
                Some(IN_VAIN * 2_u32.pow(looks))
            }
        }
    }
}

/// Claims work until the engine stops.
pub(crate) async fn run(shared: Arc<Shared>) {
    let (mut in_vain, mut last) = (InVain::default(), Instant::now());
    while !shared.stopping.is_cancelled() {
        let since = std::mem::replace(&mut last, Instant::now()).elapsed();
        let found = look(&shared, since).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "could not claim work");
            Found::Nothing
        });
        let pause = in_vain.pause(&found);
        if matches!(found, Found::Plenty) {
            continue;
        }
        let from = Instant::now() + pause.unwrap_or_default();
        let freed = async {
            if pause.is_none() {
                std::future::pending::<()>().await;
            }
            sleep_until(from).await;
            shared.gate.freed().await;
        };
        tokio::select! {
            () = shared.stopping.cancelled() => {}
            () = shared.nudge.notified() => {}
            () = freed => {}
            () = sleep(poll_interval()) => {}
        }
    }
}

/// Claims as much as can start, and starts it. The last look was `since` ago.
async fn look(shared: &Arc<Shared>, since: Duration) -> Result<Found, StoreError> {
    shared.nothing_waits.store(false, Ordering::Release);
    let room = room(shared, since);
    if room.executions == 0 {
        return Ok(Found::Some);
    }
    let options = &shared.options;
    let Claims { work: claimed, due } = shared.store.claim(&options.server, &room, options.lease).await?;
    if claimed.is_empty() {
        if due {
            return Ok(Found::InVain);
        }
        shared.nothing_waits.store(true, Ordering::Release);
        return Ok(Found::Nothing);
    }
    let plenty = claimed.len() >= room.executions as usize;
    shared.read_ahead(&claimed).await;
    let transit = TaskTracker::new();
    transit.close();
    for claim in claimed {
        tracing::debug!(invocation.id = %claim.invocation, execution.id = %claim.execution, "claimed");
        shared.tasks.spawn(run_claim(Arc::clone(shared), claim, transit.token()));
    }
    // The gate counts what has come to it: only then is it known again what is free.
    transit.wait().await;
    Ok(if plenty { Found::Plenty } else { Found::Some })
}

/// What may be claimed. While this server holds no claim at all one may get in line for memory: calls must not keep
/// accepted work from that for ever.
fn room(shared: &Shared, since: Duration) -> Room {
    let (sandboxes, memory) = shared.gate.spare();
    let idle = shared.registry.fences().is_empty();
    let Dealt { functions, namespaces } = shared.gate.shares();
    Room {
        executions: sandboxes.clamp(u32::from(idle), MOST),
        memory,
        total_memory: shared.gate.bounds().memory,
        in_line: idle,
        used: functions.iter().map(|(key, share)| (key.clone(), used(share, since))).collect(),
        functions_ahead: functions.into_iter().map(|(key, share)| (key, share.ahead)).collect(),
        namespaces,
    }
}

/// Turns of a function that are taken and will be so when the claim is there. As many as have ended in such a time before will have ended by
/// then: less than none are taken where a turn ends more than once, for what is claimed then finds its turn one after the other.
fn used(share: &FunctionShare, since: Duration) -> i32 {
    let soon = u128::from(share.ended) * CLAIM.as_micros() / since.max(CLAIM).as_micros();
    let soon = soon.min(u128::from(share.running * OFTEN));
    let taken = i128::from(share.running + share.waiting) - i128::try_from(soon).unwrap_or_default();
    i32::try_from(taken).unwrap_or(i32::MAX)
}

/// About a second, and not the same for all servers.
fn poll_interval() -> Duration {
    Duration::from_millis(750 + RandomState::new().hash_one(0) % 500)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_in_vain_get_rarer_until_one_finds_something() {
        let mut in_vain = InVain::default();
        let mut pauses = |found: Found, count: usize| {
            (0..count).filter_map(|_| in_vain.pause(&found)).map(|pause| pause.as_millis()).collect::<Vec<_>>()
        };
        assert_eq!(pauses(Found::InVain, 9), [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        assert_eq!(pauses(Found::Plenty, 1), [0]);
        assert_eq!(pauses(Found::InVain, 2), [1, 2], "what was found starts it anew");
        assert_eq!(pauses(Found::Some, 1), [0]);
        assert_eq!(pauses(Found::InVain, 1), [1]);
        assert!(pauses(Found::Nothing, 1).is_empty());
    }

    #[test]
    fn turns_that_end_while_a_claim_is_made_are_free_when_it_is_there() {
        let share = |ended| FunctionShare { running: 4, waiting: 1, ended, ahead: 0.0 };
        let second = Duration::from_secs(1);
        assert_eq!(used(&share(0), CLAIM), 5, "none ends");
        assert_eq!(used(&share(3), CLAIM), 2, "three end in the time of a claim");
        assert_eq!(used(&share(3), Duration::ZERO), 2);
        assert_eq!(used(&share(10), CLAIM), -5, "some end twice");
        assert_eq!(used(&share(100), CLAIM), -11, "four times is as far as anybody can see");
        assert_eq!(used(&share(3), second), 5, "three in a second are none in a claim");
        assert_eq!(used(&share(1000), second), 2, "a thousand are three");
    }
}
