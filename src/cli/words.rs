//! States, spans and sizes in words that fit a column.

use std::time::Duration;

use runlet_core::clock::Timestamp;
use runlet_core::execution::ExecutionState;
use runlet_core::outcome::{Outcome, OutcomeKind};
use runlet_core::store::execution::Execution;

/// An outcome with the number that belongs to it: `ok`, `exit 3`, `signal 11`, `timeout`.
pub(crate) fn outcome(outcome: &Outcome) -> String {
    match (outcome.kind, outcome.exit_code, outcome.signal) {
        (OutcomeKind::Exit, Some(code), _) => format!("exit {code}"),
        (OutcomeKind::Signal, _, Some(signal)) => format!("signal {signal}"),
        (kind, _, _) => kind.to_string(),
    }
}

/// State of an execution, with the outcome where that says more: `running`, `succeeded`, `failed (exit 3)`.
pub(crate) fn state(state: ExecutionState, ended: Option<&Outcome>) -> String {
    match ended {
        Some(ended) if state == ExecutionState::Failed => format!("{state} ({})", outcome(ended)),
        _ => state.to_string(),
    }
}

/// How long the code of an execution ran, or has run until `now`.
pub(crate) fn duration(execution: &Execution, now: Timestamp) -> String {
    let Some(started) = execution.started_at else { return "-".to_owned() };
    span(execution.finished_at.unwrap_or(now).signed_duration_since(started).to_std().unwrap_or_default())
}

/// How long ago `moment` was. A clock that runs ahead of ours gives `0s`.
pub(crate) fn age(moment: Timestamp, now: Timestamp) -> String {
    let seconds = now.signed_duration_since(moment).num_seconds().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A span with about three digits: `3.4ms`, `120ms`, `1.25s`, `2m03s`, `1h05m`.
pub(crate) fn span(span: Duration) -> String {
    let micros = span.as_micros();
    let seconds = span.as_secs();
    match micros {
        0..10_000 => format!("{}.{}ms", micros / 1_000, micros / 100 % 10),
        10_000..1_000_000 => format!("{}ms", micros / 1_000),
        1_000_000..60_000_000 => format!("{seconds}.{:02}s", micros / 10_000 % 100),
        60_000_000..3_600_000_000 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
    }
}

/// A size with one decimal in the largest unit that fits.
pub(crate) fn size(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        let whole = bytes >> shift;
        if whole > 0 {
            return format!("{whole}.{} {unit}", ((bytes >> (shift - 10)) & 1023) * 10 / 1024);
        }
    }
    format!("{bytes} B")
}

/// A moment to the second.
pub(crate) fn moment(moment: Timestamp) -> String {
    moment.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use runlet_core::clock;

    #[test]
    fn spans_have_about_three_digits() {
        let told = |micros| span(Duration::from_micros(micros));
        let spans = [0, 950, 3_456, 120_999, 999_999, 1_250_000, 59_999_999, 123_000_000, 3_900_000_000].map(told);
        assert_eq!(spans, ["0.0ms", "0.9ms", "3.4ms", "120ms", "999ms", "1.25s", "59.99s", "2m03s", "1h05m"]);
    }

    #[test]
    fn ages_never_run_backwards() {
        let now = clock::now();
        let told = |seconds| age(now - TimeDelta::seconds(seconds), now);
        assert_eq!([-5, 0, 59, 61, 7_300, 200_000].map(told), ["0s", "0s", "59s", "1m", "2h", "2d"]);
    }

    #[test]
    fn sizes_keep_one_decimal() {
        assert_eq!([0, 1_023, 1_536, 10 << 20, 3 << 29].map(size), ["0 B", "1023 B", "1.5 KiB", "10.0 MiB", "1.5 GiB"]);
    }

    #[test]
    fn a_failed_execution_says_how_it_failed() {
        assert_eq!(state(ExecutionState::Failed, Some(&Outcome::exit(3))), "failed (exit 3)");
        assert_eq!(state(ExecutionState::Failed, Some(&Outcome::of(OutcomeKind::Oom))), "failed (oom)");
        assert_eq!(state(ExecutionState::Lost, Some(&Outcome::of(OutcomeKind::Lost))), "lost");
        assert_eq!(state(ExecutionState::Succeeded, Some(&Outcome::ok())), "succeeded");
        assert_eq!(state(ExecutionState::Running, None), "running");
    }
}
