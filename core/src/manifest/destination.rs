//! `[on_success]` and `[on_failure]`: who is told how asynchronous work ended.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::name::{FunctionName, SecretName};

/// Where the end of an invocation is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Destination {
    /// Another function of the namespace is invoked with it.
    Function {
        /// Which.
        function: FunctionName,
    },
    /// It is sent to an address, as Standard Webhooks says.
    Http {
        /// The address.
        url: String,
        /// Name of the secret that it is signed with.
        secret: SecretName,
    },
}

impl Destination {
    /// The word for its kind.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Function { .. } => "function",
            Self::Http { .. } => "http",
        }
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Function { function } => write!(f, "function {function}"),
            Self::Http { url, .. } => f.write_str(url),
        }
    }
}
