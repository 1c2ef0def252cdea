//! The dispatcher: takes queued work from the store when, and only when, it could start here.
//!
//! It looks when somebody says that there is work, when something came free after it had to leave work behind, and
//! once in a while in any case: no wake-up has to arrive for work to be done.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use runlet_core::unit::ByteSize;
use tokio::time::{Instant, sleep, sleep_until};

use crate::engine::{InTransit, Shared, run_claim};

/// Most claims at a time.
const MOST: u32 = 32;

/// What a sandbox is expected to need, before the claim tells.
const TYPICAL: u64 = ByteSize::mib(128).0;

/// After a look in vain, what comes free does not cause another one for so long.
const IN_VAIN: Duration = Duration::from_millis(50);

/// What a look at the queue has left behind.
enum Left {
    /// Nothing that could be claimed.
    Nothing,
    /// There may be more, once something is free; not to be looked for before this moment.
    Maybe(Instant),
}

/// Claims work until the engine stops.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut left = look(&shared).await;
    loop {
        let freed = async {
            match left {
                Left::Maybe(from) => {
                    sleep_until(from).await;
                    shared.gate.freed().await;
                }
                Left::Nothing => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.stopping.cancelled() => return,
            () = shared.nudge.notified() => {}
            () = freed => {}
            () = sleep(poll_interval()) => {}
        }
        left = look(&shared).await;
    }
}

/// Claims as much as can start, and starts it.
async fn look(shared: &Arc<Shared>) -> Left {
    loop {
        let limit = allowance(shared).min(MOST);
        if limit == 0 || shared.stopping.is_cancelled() {
            return Left::Maybe(Instant::now());
        }
        let full = shared.gate.full();
        let options = &shared.options;
        match shared.store.claim(&options.server, i64::from(limit), options.lease, &full).await {
            Ok(claimed) => {
                let got = claimed.len();
                for claim in claimed {
                    tracing::debug!(invocation.id = %claim.invocation, execution.id = %claim.execution, "claimed");
                    let transit = InTransit::new(shared);
                    shared.tasks.spawn(run_claim(Arc::clone(shared), claim, transit));
                }
                if got == 0 {
                    return if full.is_empty() { Left::Nothing } else { Left::Maybe(Instant::now() + IN_VAIN) };
                }
            }
            Err(error) => {
                tracing::warn!(%error, "could not claim work");
                return Left::Nothing;
            }
        }
    }
}

/// How much may be claimed. At least one while this server holds no claim at all: calls that wait for room must not keep
/// accepted work from ever getting in line.
fn allowance(shared: &Shared) -> u32 {
    let in_transit = shared.in_transit.load(Ordering::Relaxed);
    let spare = shared.gate.spare(TYPICAL).saturating_sub(in_transit);
    let idle = spare == 0 && in_transit == 0 && shared.registry.fences().is_empty();
    spare.max(u32::from(idle))
}

/// About a second, and not the same for all servers.
fn poll_interval() -> Duration {
    Duration::from_millis(750 + RandomState::new().hash_one(0) % 500)
}
