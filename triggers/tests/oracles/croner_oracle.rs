//! The crate `croner`: the Open Cron Pattern Specification.

use croner::Cron;
use runlet_core::clock::Timestamp;

use super::pattern::{Case, TICKS, cases, scale};
use super::reason::{Table, is_single_time, only_around_changes, starred_step_in_days};

fn theirs(case: &Case) -> Result<Vec<Timestamp>, String> {
    let cron: Cron = case.schedule.parse().map_err(|error| format!("{error}"))?;
    let from = case.from.with_timezone(&case.zone);
    Ok(cron.iter_after(from).take(TICKS).map(|tick| tick.to_utc()).collect())
}

fn reason(case: &Case, theirs: &Result<Vec<Timestamp>, String>) -> Option<&'static str> {
    let Ok(ticks) = theirs else { return None };
    if starred_step_in_days(case) {
        return Some("a day field that begins with `*` makes both day fields count (Vixie); croner takes either");
    }
    if !only_around_changes(case, ticks) {
        return None;
    }
    if case.zone.name() == "Australia/Lord_Howe" {
        return Some("a change of half an hour: croner's rules are made for whole hours");
    }
    if !is_single_time(case) {
        return Some(
            "lists, ranges and steps are times of the day for us (once in the fold, right after the gap); croner runs them twice or not at all",
        );
    }
    None
}

#[test]
fn every_difference_from_croner_has_a_reason() {
    let mut table = Table::new("croner");
    for case in cases(scale()) {
        table.compare(&case, &theirs(&case), reason);
    }
    table.finish();
}
