//! The execution: one attempt at an invocation, and its state machine.
//!
//! ```text
//!  starting ──Run──► running ──End(outcome)──► succeeded | failed | cancelled | lost
//!      └──────────End(outcome)────────────────────────────────┘
//! ```
//! No state is left once it is terminal. The store guards the same edges in SQL.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::outcome::OutcomeKind;

/// State of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExecutionState {
    /// On record; a sandbox is being found or made for it.
    Starting,
    /// The code has been given the event.
    Running,
    /// Ended with outcome `ok`.
    Succeeded,
    /// Ended with any outcome but `ok`, `cancelled` and `lost`.
    Failed,
    /// Ended because somebody cancelled it.
    Cancelled,
    /// Nobody knows how it ended.
    Lost,
}

/// What can happen to an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The code has been given the event.
    Run,
    /// It ended.
    End(OutcomeKind),
}

/// An event that the state does not allow.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[error("an execution that is {} cannot take {event:?}", state.as_str())]
pub struct IllegalTransition {
    state: ExecutionState,
    event: Event,
}

impl ExecutionState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Starting, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled, Self::Lost];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        }
    }

    /// The state named `text`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether nothing can happen to it any more.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        !matches!(self, Self::Starting | Self::Running)
    }

    /// The terminal state that an outcome leads to.
    #[must_use]
    pub const fn of_outcome(kind: OutcomeKind) -> Self {
        match kind {
            OutcomeKind::Ok => Self::Succeeded,
            OutcomeKind::Cancelled => Self::Cancelled,
            OutcomeKind::Lost => Self::Lost,
            _ => Self::Failed,
        }
    }

    /// The state after `event`.
    ///
    /// # Errors
    /// [`IllegalTransition`] where the table above has no such edge.
    pub const fn apply(self, event: Event) -> Result<Self, IllegalTransition> {
        match (self, event) {
            (Self::Starting, Event::Run) => Ok(Self::Running),
            (Self::Starting | Self::Running, Event::End(kind)) => Ok(Self::of_outcome(kind)),
            (state, event) => Err(IllegalTransition { state, event }),
        }
    }
}

impl std::fmt::Display for ExecutionState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How the sandbox of an execution came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StartKind {
    /// Created for this execution.
    Cold,
    /// Started ahead, and given to the function for this execution.
    Stem,
    /// Reused as a warm one is; the code runs in a fork of the process that had loaded it, and finds nothing of earlier calls.
    Fork,
    /// Reused: it had served the same revision before.
    Warm,
}

impl StartKind {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Stem => "stem",
            Self::Fork => "fork",
            Self::Warm => "warm",
        }
    }
}

/// What an execution used, as far as it is known. Unknown is `None`, never a guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// From when it was accepted, or due, until it had its turn and a place, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_us: Option<i64>,
    /// From then until the code was given the event, microseconds: what making the sandbox took, next to nothing for a warm one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_us: Option<i64>,
    /// From then until the end, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_us: Option<i64>,
    /// CPU time of the whole sandbox during the execution, microseconds. Not known where several calls share a sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_us: Option<i64>,
    /// Peak memory of the whole sandbox during the execution, bytes. Not known where several calls share a sandbox, nor, for a
    /// warm one, where the kernel cannot forget the peak of the call before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak: Option<i64>,
}

/// What was left of a sandbox after its end: the audited post-condition of "kill means gone".
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Remains {
    /// Processes still alive in its cgroup.
    pub processes: u32,
    /// Cgroup directories still there.
    pub cgroups: u32,
    /// Mounts of it still visible on the host.
    pub mounts: u32,
    /// Network namespaces still there.
    pub netns: u32,
}

impl Remains {
    /// Whether nothing is left.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        self.processes == 0 && self.cgroups == 0 && self.mounts == 0 && self.netns == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![Just(Event::Run), proptest::sample::select(&OutcomeKind::ALL).prop_map(Event::End)]
    }

    proptest! {
        #[test]
        fn a_terminal_state_is_final_and_reached_once(events in proptest::collection::vec(any_event(), 0..8)) {
            let mut state = ExecutionState::Starting;
            let mut ends = 0;
            for event in events {
                match state.apply(event) {
                    Ok(next) => {
                        prop_assert!(!state.is_terminal());
                        ends += usize::from(next.is_terminal());
                        state = next;
                    }
                    Err(refused) => prop_assert_eq!(refused.state, state),
                }
            }
            prop_assert!(ends <= 1);
            prop_assert_eq!(ends == 1, state.is_terminal());
        }
    }
}
