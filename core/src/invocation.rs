//! The invocation: "run this once".

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// State of an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InvocationState {
    /// Accepted, and kept back until somebody lets it go.
    Held,
    /// Accepted; it waits for its turn.
    Queued,
    /// An execution of it is on record and has not ended.
    Running,
    /// Its last execution succeeded.
    Succeeded,
    /// Its last execution failed and there will be no other.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
    /// Its deadline passed before it could start.
    Expired,
}

impl InvocationState {
    /// Every state.
    pub const ALL: [Self; 7] =
        [Self::Held, Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled, Self::Expired];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
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
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Expired)
    }
}

impl std::fmt::Display for InvocationState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
