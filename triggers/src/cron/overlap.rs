//! What a tick does when runs of the same trigger are not over. Pure: how many those are comes in.

use runlet_core::manifest::{CronTrigger, Overlap};
use runlet_core::store::cron::{Fate, Live};

use super::plan::Tick;

/// What becomes of the ticks of one trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The fate of each, in their order.
    pub fates: Vec<Fate>,
    /// Whether what runs and waits of the trigger is cancelled first.
    pub cancel: bool,
}

/// Decides about ticks that are due together while `live` runs of the trigger are not over.
///
/// Ticks that were missed and are made good for do not overlap each other: unless the policy is to run all at once, they run one
/// after the other.
#[must_use]
pub fn decide(spec: &CronTrigger, live: Live, ticks: &[Tick]) -> Decision {
    if spec.overlap == Overlap::Cancel {
        return cancel(live, ticks);
    }
    let mut live = live;
    let fates = ticks.iter().map(|tick| {
        let fate = one(spec, live, *tick);
        match fate {
            Fate::Fired => live.running += 1,
            Fate::Held => live.held += 1,
            Fate::Skipped | Fate::Missed | Fate::Full => {}
        }
        fate
    });
    Decision { fates: fates.collect(), cancel: false }
}

fn one(spec: &CronTrigger, live: Live, tick: Tick) -> Fate {
    let all = live.running + live.held;
    if all >= spec.backlog {
        return Fate::Full;
    }
    match spec.overlap {
        _ if all == 0 => Fate::Fired,
        Overlap::Allow => Fate::Fired,
        _ if tick.missed => Fate::Held,
        Overlap::BufferAll => Fate::Held,
        Overlap::BufferOne if live.held == 0 => Fate::Held,
        Overlap::Skip | Overlap::BufferOne | Overlap::Cancel => Fate::Skipped,
    }
}

/// Of several ticks the last one counts; it begins when what it cancelled is gone.
fn cancel(live: Live, ticks: &[Tick]) -> Decision {
    let busy = live.running + live.held > 0;
    let mut fates = vec![Fate::Skipped; ticks.len()];
    if let Some(last) = fates.last_mut() {
        *last = if live.running > 0 { Fate::Held } else { Fate::Fired };
    }
    Decision { cancel: busy && !ticks.is_empty(), fates }
}
