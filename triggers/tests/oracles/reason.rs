//! Why an oracle may say something else. A difference without a reason fails the test.

use std::collections::BTreeMap;
use std::io::Write as _;

use chrono::{Offset as _, TimeDelta, TimeZone as _};
use runlet_core::clock::Timestamp;

use super::pattern::Case;

/// Differences by reason, each with how many and the first example.
pub(crate) struct Table {
    oracle: &'static str,
    compared: usize,
    reasons: BTreeMap<&'static str, (usize, String)>,
    unexplained: Vec<String>,
}

impl Table {
    pub(crate) fn new(oracle: &'static str) -> Self {
        Self { oracle, compared: 0, reasons: BTreeMap::new(), unexplained: Vec::new() }
    }

    /// Compares; `reason` is asked where the two differ.
    pub(crate) fn compare(
        &mut self,
        case: &Case,
        theirs: &Result<Vec<Timestamp>, String>,
        reason: impl Fn(&Case, &Result<Vec<Timestamp>, String>) -> Option<&'static str>,
    ) {
        self.compared += 1;
        let ours = case.ours();
        if theirs.as_ref() == Ok(&ours) {
            return;
        }
        let example = format!("`{}` {}", case.schedule, case.zone);
        match reason(case, theirs) {
            Some(reason) => {
                self.reasons.entry(reason).or_insert_with(|| (0, example)).0 += 1;
            }
            None => {
                let theirs = theirs.clone().unwrap_or_default();
                let at = ours.iter().zip(&theirs).position(|(one, other)| one != other).unwrap_or(theirs.len());
                let show = |ticks: &[Timestamp]| ticks.get(at).map(|tick| tick.with_timezone(&case.zone).to_rfc3339());
                self.unexplained.push(format!("{example}: we {:?}, {} {:?}", show(&ours), self.oracle, show(&theirs)));
            }
        }
    }

    /// Writes the table, and fails where a difference has no reason.
    pub(crate) fn finish(self) {
        let differ: usize = self.reasons.values().map(|(count, _)| count).sum();
        let mut text = format!(
            "## {}\n\n{} random patterns in five zones, {} ticks each around a change of the clocks: {} equal, {differ} differ, {} without a reason.\n\n| Differences | Reason | First example |\n|---|---|---|\n",
            self.oracle,
            self.compared,
            super::pattern::TICKS,
            self.compared - differ - self.unexplained.len(),
            self.unexplained.len()
        );
        for (reason, (count, example)) in &self.reasons {
            text.push_str(&format!("| {count} | {reason} | {example} |\n"));
        }
        let _ = writeln!(std::io::stdout(), "{text}");
        if let Some(path) = std::env::var_os("RUNLET_VERIFY_TABLE") {
            let file = std::fs::File::options().create(true).append(true).open(path).expect("the table is writable");
            writeln!(&file, "{text}").expect("the table is writable");
        }
        assert!(
            self.unexplained.is_empty(),
            "{} without a reason:\n{}",
            self.unexplained.len(),
            self.unexplained.join("\n")
        );
    }
}

/// Whether both day fields are set and one begins with a star and a step: Vixie's star, which makes both count.
pub(crate) fn starred_step_in_days(case: &Case) -> bool {
    let fields = case.fields();
    let (day, weekday) = (fields[2], fields[4]);
    day != "*" && weekday != "*" && (day.starts_with('*') || weekday.starts_with('*'))
}

/// Whether all differences are within a day of a change of the clocks.
pub(crate) fn only_around_changes(case: &Case, theirs: &[Timestamp]) -> bool {
    let ours = case.ours();
    let last = ours.last().copied().min(theirs.last().copied());
    let differs =
        ours.iter().filter(|tick| !theirs.contains(tick)).chain(theirs.iter().filter(|tick| !ours.contains(tick)));
    // Beyond the end of the shorter list nothing is known.
    differs.filter(|tick| Some(**tick) <= last).all(|tick| {
        let offset =
            |moment: Timestamp| case.zone.offset_from_utc_datetime(&moment.naive_utc()).fix().local_minus_utc();
        offset(*tick - TimeDelta::hours(24)) != offset(*tick + TimeDelta::hours(24))
    })
}

/// Whether the pattern could match in more than one hour or minute of a night: it is no single time of the day.
pub(crate) fn is_single_time(case: &Case) -> bool {
    let fields = case.fields();
    fields[..2].iter().all(|field| field.bytes().all(|byte| byte.is_ascii_digit()))
}
