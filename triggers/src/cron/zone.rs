//! What a schedule's wall clock means in a zone: the rules for the days on which clocks are changed.
//!
//! ```text
//!                     clocks go forward (gap)               clocks go back (fold)
//!  time of day        once, at the first moment after it    once, in the first pass
//!  rhythm (`*`)       what does not exist is left out       in both passes
//! ```
//! Times of the day that fall into one gap make one tick. Ticks are strictly ordered in time, whatever the zone does.

use std::str::FromStr as _;

use chrono::{DateTime, NaiveDateTime, Offset as _, TimeDelta, TimeZone as _};
use chrono_tz::Tz;
use runlet_core::clock::Timestamp;

use super::expr::{BadExpr, Expr};

/// Zones change their offset days apart at least: looking every half day misses no change.
const LOOK: TimeDelta = TimeDelta::hours(12);

/// The zone of this IANA name.
///
/// # Errors
/// [`BadExpr`] for a name that the database does not have.
pub fn zone(name: &str) -> Result<Tz, BadExpr> {
    Tz::from_str(name).map_err(|_| {
        let shown: String = name.chars().take(60).collect();
        let message = format!("`{shown}` is no zone of the IANA database; write one like \"Europe/Berlin\" or \"UTC\"");
        BadExpr { field: Some("zone"), message }
    })
}

/// A schedule in its zone.
#[derive(Debug, Clone)]
pub struct Rhythm {
    expr: Expr,
    zone: Tz,
}

impl Rhythm {
    /// `schedule` on the wall clock of `zone`.
    ///
    /// # Errors
    /// [`BadExpr`] that names the field, or the zone.
    pub fn new(schedule: &str, zone_name: &str, seconds: bool) -> Result<Self, BadExpr> {
        Ok(Self { zone: zone(zone_name)?, expr: Expr::parse(schedule, seconds)? })
    }

    /// Its zone.
    #[must_use]
    pub const fn zone(&self) -> Tz {
        self.zone
    }

    /// The first tick after `moment`; `None`: there is none until the year 2100.
    #[must_use]
    pub fn after(&self, moment: Timestamp) -> Option<Timestamp> {
        // Ticks are whole seconds: the fraction changes nothing.
        let moment = DateTime::from_timestamp(moment.timestamp(), 0)?;
        if self.expr.is_interval() { self.interval_after(moment) } else { self.time_of_day_after(moment) }
    }

    /// Ticks after `moment`, in order.
    pub fn ticks_after(&self, moment: Timestamp) -> impl Iterator<Item = Timestamp> + '_ {
        std::iter::successors(self.after(moment), |tick| self.after(*tick))
    }

    fn offset(&self, moment: Timestamp) -> TimeDelta {
        TimeDelta::seconds(self.zone.offset_from_utc_datetime(&moment.naive_utc()).fix().local_minus_utc().into())
    }

    /// Follows the clock through each stretch of one offset in turn.
    fn interval_after(&self, moment: Timestamp) -> Option<Timestamp> {
        let (mut from, mut inclusive) = (moment, false);
        loop {
            let offset = self.offset(from);
            let wall = from.naive_utc() + offset;
            let wall = if inclusive { wall - TimeDelta::seconds(1) } else { wall };
            let tick = (self.expr.after(wall)? - offset).and_utc();
            match self.change(from, tick) {
                None => return Some(tick),
                Some(change) => (from, inclusive) = (change, true),
            }
        }
    }

    /// Each time of the day once; several that a gap swallows make one tick.
    fn time_of_day_after(&self, moment: Timestamp) -> Option<Timestamp> {
        let mut wall = moment.naive_utc() + self.offset(moment);
        loop {
            wall = self.expr.after(wall)?;
            let tick = self.first_moment_of(wall);
            // In the second pass of a fold the wall clock shows times that have had their tick.
            if tick > moment {
                return Some(tick);
            }
        }
    }

    /// The first moment at which the clocks show `wall` or, where they jump over it, something later.
    fn first_moment_of(&self, wall: NaiveDateTime) -> Timestamp {
        if let Some(moment) = self.zone.from_local_datetime(&wall).earliest() {
            return moment.to_utc();
        }
        // No offset of the world is beyond 14 hours.
        let before = (wall - LOOK * 2).and_utc();
        let day = LOOK * 4;
        self.changes(before, before + day)
            .find(|change| change.naive_utc() + self.offset(*change) > wall)
            .unwrap_or(before + day)
    }

    /// The first change of the offset after `from`, up to and with `to`.
    fn change(&self, from: Timestamp, to: Timestamp) -> Option<Timestamp> {
        self.changes(from, to).next()
    }

    /// The moments after `from` and up to `to` at which another offset begins.
    fn changes(&self, from: Timestamp, to: Timestamp) -> impl Iterator<Item = Timestamp> + '_ {
        let mut at = from;
        std::iter::from_fn(move || {
            while at < to {
                let next = (at + LOOK).min(to);
                let old = self.offset(at);
                if self.offset(next) == old {
                    at = next;
                    continue;
                }
                let (mut low, mut high) = (at.timestamp(), next.timestamp());
                while high - low > 1 {
                    let middle = low + (high - low) / 2;
                    if self.offset(DateTime::from_timestamp(middle, 0)?) == old { low = middle } else { high = middle }
                }
                at = DateTime::from_timestamp(high, 0)?;
                return Some(at);
            }
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(schedule: &str, zone: &str, from: &str, n: usize) -> Vec<String> {
        let rhythm = Rhythm::new(schedule, zone, schedule.split(' ').count() == 6).expect(schedule);
        let from: Timestamp = from.parse().expect("a moment");
        let show = |tick: Timestamp| tick.with_timezone(&rhythm.zone()).format("%m-%d %H:%M:%S %z").to_string();
        rhythm.ticks_after(from).take(n).map(show).collect()
    }

    const SPRING: &str = "2026-03-29T00:00:00Z";
    const AUTUMN: &str = "2026-10-24T23:30:00Z";

    #[test]
    fn a_time_in_the_gap_runs_once_right_after_it() {
        let berlin = |schedule, n| ticks(schedule, "Europe/Berlin", SPRING, n);
        assert_eq!(berlin("30 2 * * *", 2), ["03-29 03:00:00 +0200", "03-30 02:30:00 +0200"]);
        assert_eq!(berlin("10,20,30 2 * * *", 2), ["03-29 03:00:00 +0200", "03-30 02:10:00 +0200"]);
        assert_eq!(berlin("30 2,3 * * *", 3), ["03-29 03:00:00 +0200", "03-29 03:30:00 +0200", "03-30 02:30:00 +0200"]);
        assert_eq!(berlin("0 2-3 * * *", 2), ["03-29 03:00:00 +0200", "03-30 02:00:00 +0200"]);
    }

    #[test]
    fn a_time_in_the_fold_runs_once() {
        let berlin = |schedule, n| ticks(schedule, "Europe/Berlin", AUTUMN, n);
        assert_eq!(berlin("30 2 * * *", 2), ["10-25 02:30:00 +0200", "10-26 02:30:00 +0100"]);
        assert_eq!(
            berlin("0,30 1-3 * * *", 4),
            ["10-25 02:00:00 +0200", "10-25 02:30:00 +0200", "10-25 03:00:00 +0100", "10-25 03:30:00 +0100"]
        );
        let second_pass = ticks("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1);
        assert_eq!(second_pass, ["10-26 02:30:00 +0100"]);
    }

    #[test]
    fn a_rhythm_neither_stops_nor_goes_back() {
        let autumn = [
            "10-25 02:00:00 +0200",
            "10-25 02:30:00 +0200",
            "10-25 02:00:00 +0100",
            "10-25 02:30:00 +0100",
            "10-25 03:00:00 +0100",
        ];
        assert_eq!(ticks("*/30 * * * *", "Europe/Berlin", AUTUMN, 5), autumn);
        assert_eq!(ticks("*/30 0-23 * * *", "Europe/Berlin", AUTUMN, 5), autumn);
        let spring = ["03-29 01:30:00 +0100", "03-29 03:00:00 +0200", "03-29 03:30:00 +0200"];
        assert_eq!(ticks("*/30 * * * *", "Europe/Berlin", SPRING, 3), spring);
        assert_eq!(ticks("5 0-23 * * *", "Europe/Berlin", SPRING, 2), ["03-29 01:05:00 +0100", "03-29 03:05:00 +0200"]);
    }

    #[test]
    fn half_an_hour_is_a_change_too() {
        let howe = |schedule, from, n| ticks(schedule, "Australia/Lord_Howe", from, n);
        assert_eq!(howe("15 2 * * *", "2026-10-03T13:00:00Z", 2), ["10-04 02:30:00 +1100", "10-05 02:15:00 +1100"]);
        assert_eq!(howe("45 1 * * *", "2026-04-04T14:30:00Z", 2), ["04-05 01:45:00 +1100", "04-06 01:45:00 +1030"]);
        assert_eq!(
            howe("*/15 * * * *", "2026-04-04T14:40:00Z", 4),
            ["04-05 01:45:00 +1100", "04-05 01:30:00 +1030", "04-05 01:45:00 +1030", "04-05 02:00:00 +1030"]
        );
    }

    #[test]
    fn a_change_between_two_far_ticks_is_not_missed() {
        // All of a year's ticks are in the hour that the fold repeats.
        let once_a_year = ticks("*/20 2 25 10 *", "Europe/Berlin", "2026-10-25T00:40:00Z", 4);
        assert_eq!(once_a_year[..3], ["10-25 02:00:00 +0100", "10-25 02:20:00 +0100", "10-25 02:40:00 +0100"]);
        assert_eq!(once_a_year[3], "10-25 02:00:00 +0200");
    }

    #[test]
    fn a_day_that_a_zone_leaves_out_has_its_tick_at_its_end() {
        // Samoa went from 29 to 31 December 2011.
        assert_eq!(ticks("0 12 30 12 *", "Pacific/Apia", "2011-12-29T00:00:00Z", 1), ["12-31 00:00:00 +1400"]);
        assert!(Rhythm::new("0 0 * * *", "Mars/Olympus", false).is_err());
        assert!(Rhythm::new("0 0 * * *", "europe/berlin", false).is_err());
    }
}
