//! Where claims begin to look.
//!
//! ```text
//!  index of a lane, by the moment it is due:   gone  gone  gone │ waits  waits  waits
//!                                                               └ floor
//! ```
//! What has been claimed stays in the index until no transaction can see it any more. Behind one that lasts (a backup, a report) a claim
//! that began at the front of its lane would walk over all that has gone since: ever slower, the more was done. A claim begins at the
//! floor instead, below which nothing was due when somebody looked last. What came late, or came back, below it is found because once in
//! a while a claim looks there too.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::clock::Timestamp;

/// How far floors lie below now at least: whatever is on record that long after its transaction began is never below one.
pub(super) const LATE: Duration = Duration::from_secs(1);

/// How often a claim looks below the floors.
const AFRESH: Duration = Duration::from_secs(1);

/// A claim that looked below the floors is followed by so many times its duration in which none does, [`SELDOM`] at most.
const REST: u32 = 20;

/// However long it takes, a claim looks below the floors so often.
const SELDOM: Duration = Duration::from_secs(10);

/// What is left in the index of a lane in which nothing has waited for so long is walked over by one claim again.
const KEPT: Duration = Duration::from_secs(600);

/// What waits of a function with one priority, as the queue calls it.
pub(super) type Lane = String;

/// A place in a lane: since when what is there is due, and its invocation.
pub(super) type Place = (Timestamp, Uuid);

/// The floors of all lanes in which something waited lately.
#[derive(Debug, Default)]
pub(in crate::store) struct Floors(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    lanes: HashMap<Lane, Floor>,
    /// When a claim looked below the floors last, and how long that took.
    afresh: Option<(Instant, Duration)>,
}

#[derive(Debug)]
struct Floor {
    at: Place,
    /// When something waited there last.
    seen: Instant,
}

impl Floors {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lanes for a claim at `now`, each with the place from which it is to look (`None`: from its front); and whether it looks below the floors.
    pub(super) fn lanes(&self, now: Instant) -> (Vec<(Lane, Option<Place>)>, bool) {
        let known = self.known();
        let afresh =
            known.afresh.is_none_or(|(at, took)| now.duration_since(at) >= (took * REST).clamp(AFRESH, SELDOM));
        let from = |floor: &Floor| (!afresh).then_some(floor.at);
        (known.lanes.iter().map(|(lane, floor)| (lane.clone(), from(floor))).collect(), afresh)
    }

    /// A claim that began at `began` saw these lanes, each with the place of its best work; in no other lane it looked at was anything due.
    /// What may still come late is due from `late` on.
    pub(super) fn saw(
        &self,
        seen: impl IntoIterator<Item = (Lane, Place)>,
        late: Timestamp,
        afresh: bool,
        began: Instant,
    ) {
        let late = (late, Uuid::nil());
        let mut known = self.known();
        let now = Instant::now();
        if afresh {
            known.afresh = Some((now, now.duration_since(began)));
        }
        known.lanes.retain(|_, floor| began.duration_since(floor.seen) < KEPT);
        for floor in known.lanes.values_mut() {
            floor.at = late;
        }
        for (lane, best) in seen {
            known.lanes.insert(lane, Floor { at: best.min(late), seen: began });
        }
    }

    /// Something has come back that was claimed: it is due since before the floors.
    pub(in crate::store) fn forget(&self) {
        self.known().afresh = None;
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn lane(function: &str) -> Lane {
        format!("default/{function}/32767")
    }

    /// From where a claim at `now` looks for what waits of a function that is known.
    fn from(floors: &Floors, function: &str, now: Instant) -> Option<Place> {
        floors.lanes(now).0.into_iter().find(|(known, _)| *known == lane(function)).expect("it is known").1
    }

    #[test]
    fn a_floor_is_where_the_best_work_was_and_never_too_near() {
        let (floors, start, now) = (Floors::default(), Instant::now(), Timestamp::default());
        let ago = |seconds| now - TimeDelta::seconds(seconds);
        let (first, second, late) = ((ago(60), Uuid::max()), (ago(50), Uuid::max()), (ago(1), Uuid::nil()));
        assert_eq!(floors.lanes(start), (vec![], true));
        floors.saw([(lane("backlog"), first), (lane("live"), (now, Uuid::max()))], ago(1), true, start);
        assert_eq!((from(&floors, "backlog", start), from(&floors, "live", start)), (Some(first), Some(late)));
        floors.saw([(lane("backlog"), second)], ago(1), false, start);
        assert_eq!((from(&floors, "backlog", start), from(&floors, "live", start)), (Some(second), Some(late)));
        floors.saw([], ago(1), false, start);
        assert_eq!(from(&floors, "backlog", start), Some(late), "nothing is due there");
    }

    #[test]
    fn once_in_a_while_a_claim_looks_below() {
        let (floors, start) = (Floors::default(), Instant::now());
        floors.saw([(lane("f"), Place::default())], Timestamp::default(), true, start);
        assert_eq!(from(&floors, "f", start), Some(Place::default()));
        let later = Instant::now() + AFRESH;
        assert!(from(&floors, "f", later).is_none());
        let long_ago = start.checked_sub(Duration::from_secs(2)).expect("it has run for longer");
        floors.saw([], Timestamp::default(), true, long_ago);
        assert!(from(&floors, "f", later).is_some(), "that one took two seconds");
        assert!(from(&floors, "f", later + SELDOM).is_none());
        floors.forget();
        assert!(from(&floors, "f", start).is_none());
    }

    #[test]
    fn a_lane_in_which_nothing_waits_any_more_is_forgotten() {
        let (floors, start) = (Floors::default(), Instant::now());
        floors.saw([(lane("f"), Place::default())], Timestamp::default(), true, start);
        floors.saw([], Timestamp::default(), false, start + KEPT);
        assert!(floors.lanes(start + KEPT).0.is_empty());
    }
}
