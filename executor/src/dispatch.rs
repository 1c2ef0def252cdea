//! The dispatcher: takes queued work from the store when, and only when, it could start here.
//!
//! It looks when somebody says that there is work, when something came free after it had to leave work behind, and
//! once in a while in any case: no wake-up has to arrive for work to be done.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use runlet_core::store::StoreError;
use runlet_core::store::queue::Room;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::TaskTracker;

use crate::admission::Dealt;
use crate::engine::{Shared, run_claim};

/// Most claims at a time.
const MOST: u32 = 32;

/// After a look in vain, what comes free does not cause another one for so long; twice as long after each further one.
const IN_VAIN: Duration = Duration::from_millis(1);

/// How often that doubles at most.
const DOUBLINGS: u32 = 6;

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

/// Claims work until the engine stops.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut in_vain = 0;
    while !shared.stopping.is_cancelled() {
        let found = look(&shared).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "could not claim work");
            Found::Nothing
        });
        let pause = match found {
            Found::Plenty => continue,
            Found::Nothing => None,
            Found::Some => Some(Duration::ZERO),
            Found::InVain => Some(IN_VAIN * 2_u32.pow(in_vain)),
        };
        in_vain = if matches!(found, Found::InVain) { DOUBLINGS.min(in_vain + 1) } else { 0 };
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

/// Claims as much as can start, and starts it.
async fn look(shared: &Arc<Shared>) -> Result<Found, StoreError> {
    let room = room(shared);
    if room.executions == 0 {
        return Ok(Found::Some);
    }
    let options = &shared.options;
    let claimed = shared.store.claim(&options.server, &room, options.lease).await?;
    if claimed.is_empty() {
        return Ok(if shared.store.work_is_due().await? { Found::InVain } else { Found::Nothing });
    }
    let plenty = claimed.len() >= room.executions as usize;
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
fn room(shared: &Shared) -> Room {
    let (sandboxes, memory) = shared.gate.spare();
    let idle = shared.registry.fences().is_empty();
    let Dealt { functions, namespaces } = shared.gate.shares();
    Room {
        executions: sandboxes.clamp(u32::from(idle), MOST),
        memory,
        total_memory: shared.gate.bounds().memory,
        in_line: idle,
        used: functions.iter().map(|(key, (used, _))| (key.clone(), *used)).collect(),
        functions_ahead: functions.into_iter().map(|(key, (_, ahead))| (key, ahead)).collect(),
        namespaces,
    }
}

/// About a second, and not the same for all servers.
fn poll_interval() -> Duration {
    Duration::from_millis(750 + RandomState::new().hash_one(0) % 500)
}
