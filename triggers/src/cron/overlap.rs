//! What a tick does when runs of the same trigger are not over. Pure: how many those are comes in.

use runlet_core::manifest::Overlap;
use runlet_core::store::cron::{Decision, DueTick, DueTicks, Fate, Live};

/// Decides about ticks that are due together while `live` runs of the trigger are not over.
///
/// Ticks that were missed and are made good for do not overlap each other: unless the policy is to run all at once, they run one
/// after the other. Of a trigger that cancels, only the last tick counts.
#[must_use]
pub fn decide(due: &DueTicks, live: Live) -> Decision {
    if due.overlap == Overlap::Cancel {
        return cancel(live, due.ticks.len());
    }
    let mut live = live;
    let fates = due.ticks.iter().map(|tick| {
        let fate = one(due, live, tick);
        match fate {
            Fate::Fired => live.running += 1,
            Fate::Held => live.held += 1,
            Fate::Skipped | Fate::Missed | Fate::Full => {}
        }
        fate
    });
    Decision { fates: fates.collect(), cancel: false }
}

fn one(due: &DueTicks, live: Live, tick: &DueTick) -> Fate {
    let all = live.running + live.held;
    match due.overlap {
        _ if all >= due.backlog => Fate::Full,
        _ if all == 0 => Fate::Fired,
        Overlap::Allow => Fate::Fired,
        _ if tick.missed => Fate::Held,
        Overlap::BufferAll => Fate::Held,
        Overlap::BufferOne if live.held == 0 => Fate::Held,
        Overlap::Skip | Overlap::BufferOne | Overlap::Cancel => Fate::Skipped,
    }
}

/// Of several ticks the last one counts; it begins when what it cancelled is gone.
fn cancel(live: Live, ticks: usize) -> Decision {
    let mut fates = vec![Fate::Skipped; ticks];
    if let Some(last) = fates.last_mut() {
        *last = if live.running > 0 { Fate::Held } else { Fate::Fired };
    }
    Decision { fates, cancel: live.running + live.held > 0 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use runlet_core::clock::Timestamp;
    use runlet_core::id::TriggerId;

    fn told(overlap: Overlap, backlog: u32, running: u32, held: u32, missed: usize, on_time: usize) -> String {
        let at = Timestamp::default();
        let tick = |nth| DueTick { at, missed: nth < missed, delay: Duration::ZERO, body: Default::default() };
        let ticks = (0..missed + on_time).map(tick).collect();
        let (trigger, rhythm) = (TriggerId::new(), String::new());
        let due = DueTicks { trigger, rhythm, from: at, overlap, backlog, ticks, missed: Vec::new() };
        let decision = decide(&due, Live { running, held });
        let fates: Vec<&str> = decision.fates.iter().map(|fate| fate.as_str()).collect();
        format!("{}{}", if decision.cancel { "cancel " } else { "" }, fates.join(" "))
    }

    #[test]
    fn skip_passes_over_what_overlaps() {
        assert_eq!(told(Overlap::Skip, 100, 0, 0, 0, 1), "fired");
        assert_eq!(told(Overlap::Skip, 100, 1, 0, 0, 1), "skipped");
        assert_eq!(told(Overlap::Skip, 100, 0, 0, 0, 3), "fired skipped skipped");
        assert_eq!(told(Overlap::Skip, 100, 0, 0, 3, 1), "fired held held skipped");
    }

    #[test]
    fn buffers_hold_one_or_all() {
        let one = Overlap::BufferOne;
        assert_eq!(told(one, 100, 1, 0, 0, 2), "held skipped");
        assert_eq!(told(one, 100, 1, 1, 0, 1), "skipped");
        let all = Overlap::BufferAll;
        assert_eq!(told(all, 3, 0, 0, 0, 4), "fired held held full");
        assert_eq!(told(all, 3, 1, 1, 2, 0), "held full");
    }

    #[test]
    fn cancel_lets_the_last_one_count() {
        assert_eq!(told(Overlap::Cancel, 100, 0, 0, 0, 1), "fired");
        assert_eq!(told(Overlap::Cancel, 100, 1, 0, 0, 2), "cancel skipped held");
        assert_eq!(told(Overlap::Cancel, 100, 0, 1, 0, 1), "cancel fired");
    }

    #[test]
    fn allow_runs_beside_up_to_its_backlog() {
        assert_eq!(told(Overlap::Allow, 2, 1, 0, 0, 2), "fired full");
    }
}
