//! `[retry]`: when asynchronous work that failed is executed again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backoff;
use crate::outcome::OutcomeKind;
use crate::unit::Span;

/// A kind of failure that may pass by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryOn {
    /// The code failed: it raised, exited with a status, was ended by a signal, could not be loaded or broke the protocol.
    Error,
    /// It ran longer than its timeout.
    Timeout,
    /// It used more memory than its limit.
    Oom,
}

impl RetryOn {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Error, Self::Timeout, Self::Oom];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Oom => "oom",
        }
    }

    /// The kind that an outcome is; `None` for success, for what somebody cancelled, and for `lost`, which is
    /// [`OnLost`](super::OnLost)'s matter.
    #[must_use]
    pub const fn of(outcome: OutcomeKind) -> Option<Self> {
        match outcome {
            OutcomeKind::Ok | OutcomeKind::Cancelled | OutcomeKind::Lost => None,
            OutcomeKind::Timeout => Some(Self::Timeout),
            OutcomeKind::Oom => Some(Self::Oom),
            OutcomeKind::Error
            | OutcomeKind::Exit
            | OutcomeKind::Signal
            | OutcomeKind::InitError
            | OutcomeKind::RuntimeError => Some(Self::Error),
        }
    }
}

/// When asynchronous work that failed is executed again. Synchronous calls never are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Most executions of an invocation.
    pub max_attempts: u32,
    /// It is not started any more when it was accepted (or was due) so long ago; `None`: no such bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
    /// After which failures.
    pub on: Vec<RetryOn>,
    /// Pause after the first failure.
    pub min_backoff: Span,
    /// Longest pause.
    pub max_backoff: Span,
}

impl Default for Retry {
    /// None: what fails has failed.
    fn default() -> Self {
        Self { max_attempts: 1, ..Self::ASKED }
    }
}

impl Retry {
    /// What a `[retry]` table means that says nothing else.
    pub(super) const ASKED: Self = Self {
        max_attempts: 3,
        max_age: None,
        on: Vec::new(),
        min_backoff: Span(Duration::from_secs(1)),
        max_backoff: Span(Duration::from_secs(300)),
    };

    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// How long to wait before the next attempt, after attempt number `attempt` ended like this; `None`: there is none.
    #[must_use]
    pub fn after(&self, outcome: OutcomeKind, attempt: u32, dice: f64) -> Option<Duration> {
        let wanted = RetryOn::of(outcome).is_some_and(|kind| self.on.contains(&kind));
        let pause = || backoff::nth_pause(self.min_backoff.0, self.max_backoff.0, attempt, dice);
        (wanted && attempt < self.max_attempts).then(pause)
    }

    /// The pause after attempt number `attempt` was lost: none after the first, for it was not the code's doing, then longer each time.
    #[must_use]
    pub fn after_lost(attempt: u32) -> Duration {
        Duration::from_secs(2_u64.saturating_pow(attempt.saturating_sub(1)).saturating_sub(1).min(3600))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_is_tried_again_and_only_so_often() {
        let retry = Retry { on: vec![RetryOn::Error, RetryOn::Timeout], ..Retry::ASKED };
        let after = |outcome, attempt| retry.after(outcome, attempt, 0.0).map(|pause| pause.as_secs());
        assert_eq!([1, 2, 3].map(|attempt| after(OutcomeKind::Exit, attempt)), [Some(1), Some(2), None]);
        assert_eq!(after(OutcomeKind::Timeout, 1), Some(1));
        for outcome in [OutcomeKind::Ok, OutcomeKind::Cancelled, OutcomeKind::Lost, OutcomeKind::Oom] {
            assert_eq!(after(outcome, 1), None, "{outcome}");
        }
        for outcome in OutcomeKind::ALL {
            assert_eq!(Retry::default().after(outcome, 1, 0.0), None);
        }
    }

    #[test]
    fn what_was_lost_comes_back_at_once_and_then_later_and_later() {
        assert_eq!([1, 2, 3, 5, 99].map(|attempt| Retry::after_lost(attempt).as_secs()), [0, 1, 3, 15, 3600]);
    }
}
