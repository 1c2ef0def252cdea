//! Which ticks of a schedule are due, and what becomes of those that nobody was there for. Pure: the moment comes in.
//!
//! ```text
//!  cursor ├──── missed ────┤ late by GRACE ├── on time ──┤ now
//!            `misfire` says                   they fire
//! ```

use std::collections::VecDeque;
use std::hash::Hasher as _;
use std::time::Duration;

use chrono::TimeDelta;
use runlet_core::clock::Timestamp;
use runlet_core::id::TriggerId;
use runlet_core::manifest::{CronTrigger, Misfire};

use super::zone::Rhythm;

/// A tick this late is not missed yet: a restart or a slow database is no downtime.
pub const GRACE: TimeDelta = TimeDelta::seconds(10);

/// How far a cursor may be ahead of the clock. Farther, the clock was wrong when the cursor was set: it is taken back, so that a
/// schedule does not sleep for years.
const AHEAD: TimeDelta = TimeDelta::days(1);

/// Most ticks that are passed over and still on record one by one.
const RECORDED: usize = 100;

/// What is due of one schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Ticks to fire, oldest first.
    pub fire: Vec<Tick>,
    /// Ticks that were missed and do not fire: the last ones of them.
    pub missed: Vec<Timestamp>,
    /// Whether more were missed than are named.
    pub more_missed: bool,
}

/// A tick to fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// The moment the schedule names.
    pub at: Timestamp,
    /// Whether it is made good for, after it was missed.
    pub missed: bool,
}

/// What is due at `now` of a schedule whose ticks up to `cursor` are decided; all are, up to `now`, when that has fired. `None`: nothing is.
#[must_use]
pub fn due(rhythm: &Rhythm, spec: &CronTrigger, cursor: Timestamp, now: Timestamp) -> Option<Due> {
    let first = rhythm.after(cursor)?;
    if first > now {
        return None;
    }
    let on_time_from = now - GRACE;
    let on_time = Found::latest(rhythm, cursor.max(on_time_from), now, usize::MAX, cursor.max(on_time_from));
    let mut late = Found::default();
    if first <= on_time_from {
        let window = TimeDelta::from_std(spec.misfire_window.0).unwrap_or(TimeDelta::MAX);
        let oldest = now.checked_sub_signed(window).unwrap_or(cursor).max(cursor);
        let wanted = match spec.misfire {
            Misfire::None => 0,
            Misfire::Last => 1,
            Misfire::All => spec.misfire_limit as usize,
        };
        late = Found::latest(rhythm, cursor, on_time_from, wanted + RECORDED, first);
        let keep = match spec.misfire {
            Misfire::Last if !on_time.ticks.is_empty() => 0,
            _ => wanted,
        };
        late.split = late.ticks.len().saturating_sub(keep);
        while late.ticks.get(late.split).is_some_and(|tick| *tick < oldest) {
            late.split += 1;
        }
    }
    let (missed, made_good): (Vec<_>, Vec<_>) = late.ticks.iter().enumerate().partition(|(nth, _)| *nth < late.split);
    let mut fire: Vec<Tick> = made_good.into_iter().map(|(_, at)| Tick { at: *at, missed: true }).collect();
    fire.extend(on_time.ticks.iter().map(|at| Tick { at: *at, missed: false }));
    let missed: Vec<Timestamp> = missed.into_iter().map(|(_, at)| *at).collect();
    let skip = missed.len().saturating_sub(RECORDED);
    let more_missed = late.more || skip > 0;
    Some(Due { fire, missed: missed.into_iter().skip(skip).collect(), more_missed })
}

/// A cursor from which to go on: itself, unless it is so far ahead that the clock must have been wrong then.
#[must_use]
pub fn sane_cursor(cursor: Timestamp, now: Timestamp) -> Timestamp {
    if cursor > now + AHEAD { now } else { cursor }
}

/// How long after its moment a tick starts: the same on every server, anywhere below the trigger's `jitter`.
#[must_use]
pub fn jitter(trigger: TriggerId, at: Timestamp, most: Duration) -> Duration {
    let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
    if most == 0 {
        return Duration::ZERO;
    }
    // FNV: no secret is at stake, and it must not differ between two builds.
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    hash.write(trigger.uuid().as_bytes());
    hash.write(&at.timestamp().to_le_bytes());
    // The low bits of FNV are its weak ones.
    Duration::from_millis((hash.finish() >> 16) % most)
}

struct Fnv(u64);

impl std::hash::Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// The last ticks of a stretch of time.
#[derive(Debug, Default)]
struct Found {
    ticks: VecDeque<Timestamp>,
    /// Whether there were earlier ones in the stretch.
    more: bool,
    /// Index of the first one that is made good for.
    split: usize,
}

impl Found {
    /// The last `most` ticks after `from`, up to and with `to`. However long the stretch is, little more than those is walked
    /// through: it is looked at from its end, in pieces that double. `first` is the earliest tick there can be.
    fn latest(rhythm: &Rhythm, from: Timestamp, to: Timestamp, most: usize, first: Timestamp) -> Self {
        let mut back = TimeDelta::seconds(i64::try_from(most.min(3600)).unwrap_or(3600).max(60));
        loop {
            let start = to.checked_sub_signed(back).unwrap_or(from).max(from);
            let whole = start <= from;
            let mut found = Self { more: !whole && start >= first, ..Self::default() };
            for tick in rhythm.ticks_after(start).take_while(|tick| *tick <= to) {
                found.ticks.push_back(tick);
                if found.ticks.len() > most {
                    found.ticks.pop_front();
                    found.more = true;
                }
            }
            if whole || found.ticks.len() >= most {
                return found;
            }
            back = back * 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use runlet_core::unit::Span;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-22T{text}Z").parse().expect("a moment")
    }

    fn spec(schedule: &str, misfire: Misfire) -> CronTrigger {
        CronTrigger {
            schedule: schedule.to_owned(),
            zone: "UTC".to_owned(),
            seconds: schedule.split(' ').count() == 6,
            overlap: runlet_core::manifest::Overlap::Skip,
            misfire,
            misfire_window: Span(Duration::from_secs(86_400)),
            misfire_limit: 100,
            backlog: 100,
            jitter: Span(Duration::ZERO),
            data: None,
        }
    }

    fn plan(spec: &CronTrigger, cursor: &str, now: &str) -> Option<Due> {
        let rhythm = Rhythm::new(&spec.schedule, &spec.zone, spec.seconds).expect("it is valid");
        due(&rhythm, spec, at(cursor), at(now))
    }

    fn fired(due: &Due) -> Vec<String> {
        let show = |tick: &Tick| format!("{}{}", tick.at.format("%H:%M:%S"), if tick.missed { " missed" } else { "" });
        due.fire.iter().map(show).collect()
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        let spec = spec("*/5 * * * *", Misfire::Last);
        assert_eq!(plan(&spec, "10:00:00", "10:04:59.999"), None);
        let due = plan(&spec, "10:00:00", "10:05:00").expect("it is due");
        assert_eq!(fired(&due), ["10:05:00"]);
        assert_eq!(plan(&spec, "10:05:00", "10:05:00"), None, "and not a second time");
    }

    #[test]
    fn misfires_follow_their_policy() {
        let at_ten = |misfire| plan(&spec("*/10 * * * *", misfire), "08:00:00", "10:05:00").expect("due");
        let none = at_ten(Misfire::None);
        assert_eq!((none.fire.len(), none.missed.len(), none.more_missed), (0, 12, false));
        let last = at_ten(Misfire::Last);
        assert_eq!((fired(&last), last.missed.len()), (vec!["10:00:00 missed".to_owned()], 11));
        let all = at_ten(Misfire::All);
        assert_eq!((all.fire.len(), all.missed.len()), (12, 0));
        assert!(all.fire.is_sorted_by_key(|tick| tick.at));
    }

    #[test]
    fn a_tick_on_time_stands_for_the_missed_ones() {
        let last = plan(&spec("*/10 * * * *", Misfire::Last), "08:00:00", "10:00:03").expect("due");
        assert_eq!((fired(&last), last.missed.len()), (vec!["10:00:00".to_owned()], 11));
        let none = plan(&spec("*/10 * * * *", Misfire::None), "08:00:00", "10:00:03").expect("due");
        assert_eq!(fired(&none), ["10:00:00"]);
    }

    #[test]
    fn window_and_limit_keep_the_latest() {
        let mut spec = spec("* * * * *", Misfire::All);
        spec.misfire_limit = 3;
        let due = plan(&spec, "08:00:00", "10:00:30").expect("due");
        assert_eq!(fired(&due), ["09:58:00 missed", "09:59:00 missed", "10:00:00 missed"]);
        assert!(due.more_missed && due.missed.len() == RECORDED);
        spec.misfire_limit = 100;
        spec.misfire_window = Span(Duration::from_secs(90));
        let due = plan(&spec, "08:00:00", "10:00:30").expect("due");
        assert_eq!(fired(&due), ["09:59:00 missed".to_owned(), "10:00:00 missed".to_owned()][..]);
    }

    #[test]
    fn a_year_of_seconds_is_no_work() {
        let spec = spec("* * * * * *", Misfire::All);
        let rhythm = Rhythm::new(&spec.schedule, &spec.zone, true).expect("it is valid");
        let now = at("10:00:00");
        let start = std::time::Instant::now();
        let due = due(&rhythm, &spec, now - TimeDelta::days(365), now).expect("due");
        assert!(start.elapsed() < Duration::from_secs(1));
        assert_eq!(
            (due.fire.iter().filter(|tick| tick.missed).count(), due.missed.len(), due.more_missed),
            (100, 100, true)
        );
    }

    #[test]
    fn a_clock_that_steps_fires_each_tick_once() {
        let spec = spec("* * * * *", Misfire::All);
        let rhythm = Rhythm::new(&spec.schedule, &spec.zone, false).expect("it is valid");
        let (mut cursor, mut ticks) = (at("10:00:00"), Vec::new());
        // An hour forward, an hour back, and on as if nothing had been.
        let clock = (0..30).chain(90..120).chain(60..150).map(|minute| at("10:00:00") + TimeDelta::minutes(minute));
        for now in clock {
            if let Some(due) = due(&rhythm, &spec, cursor, now) {
                ticks.extend(due.fire.iter().map(|tick| tick.at));
                cursor = now;
            }
        }
        let all: Vec<Timestamp> = (1..150).map(|minute| at("10:00:00") + TimeDelta::minutes(minute)).collect();
        assert_eq!(ticks, all);
    }

    #[test]
    fn a_cursor_from_the_far_future_is_taken_back() {
        let now = at("10:00:00");
        assert_eq!(sane_cursor(now + TimeDelta::hours(1), now), now + TimeDelta::hours(1));
        assert_eq!(sane_cursor(now + TimeDelta::days(700), now), now);
    }

    #[test]
    fn jitter_is_spread_and_the_same_everywhere() {
        let id = TriggerId::new();
        let minute = Duration::from_secs(60);
        let all: Vec<Duration> =
            (0..1000).map(|n| jitter(id, at("10:00:00") + TimeDelta::minutes(n), minute)).collect();
        assert!(all.iter().all(|one| *one < minute));
        let late = all.iter().filter(|one| **one >= minute / 2).count();
        assert!((400..600).contains(&late), "{late} of 1000 in the second half");
        assert_eq!(jitter(id, at("10:00:00"), minute), all[0]);
        assert_eq!(jitter(id, at("10:00:00"), Duration::ZERO), Duration::ZERO);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_tick_is_decided_once(pauses in proptest::collection::vec(1_i64..900, 1..40)) {
            let spec = spec("*/20 * * * * *", Misfire::All);
            let rhythm = Rhythm::new(&spec.schedule, &spec.zone, true).expect("it is valid");
            let start = at("00:00:00");
            let (mut now, mut cursor, mut seen) = (start, start, Vec::new());
            for pause in pauses {
                now += TimeDelta::seconds(pause);
                if let Some(due) = due(&rhythm, &spec, cursor, now) {
                    seen.extend(due.missed.iter().copied());
                    seen.extend(due.fire.iter().map(|tick| tick.at));
                    cursor = now;
                }
            }
            let all: Vec<Timestamp> = rhythm.ticks_after(start).take_while(|tick| *tick <= now).collect();
            prop_assert_eq!(seen, all);
        }
    }
}
