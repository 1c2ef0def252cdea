//! The stable error codes: one for the API's problem documents, the CLI's exit code and the page in `docs/errors/`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A stable error code. Its text never changes; its HTTP status and the CLI's exit code belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request is understood and breaks a rule.
    Invalid,
    /// The body is not JSON.
    BadJson,
    /// The webhook's signature is missing or wrong.
    BadSignature,
    /// No valid token came with the request.
    Unauthorized,
    /// The token's role does not allow it.
    Forbidden,
    /// There is no such thing (or not in this namespace).
    NotFound,
    /// The route does not take this method.
    MethodNotAllowed,
    /// It contradicts what is there.
    Conflict,
    /// The body or the headers are larger than allowed.
    TooLarge,
    /// Too much is waiting already.
    QueueFull,
    /// The function raised an error, exited or was ended by a signal.
    FunctionError,
    /// The function used more memory than its limit.
    FunctionOom,
    /// The function broke the runtime protocol or could not be loaded.
    RuntimeError,
    /// The function ran longer than its timeout.
    FunctionTimeout,
    /// Somebody cancelled the call.
    Cancelled,
    /// The sandbox went away under the call.
    SandboxLost,
    /// The database does not answer.
    StoreDown,
    /// The disk is nearly full.
    DiskLow,
    /// It was changed since the caller looked, or is there where it must not be: `If-Match` or `If-None-Match` does not hold.
    PreconditionFailed,
    /// A fault of runlet itself.
    Internal,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 20] = [
        Self::Invalid,
        Self::BadJson,
        Self::BadSignature,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::TooLarge,
        Self::QueueFull,
        Self::FunctionError,
        Self::FunctionOom,
        Self::RuntimeError,
        Self::FunctionTimeout,
        Self::Cancelled,
        Self::SandboxLost,
        Self::StoreDown,
        Self::DiskLow,
        Self::PreconditionFailed,
        Self::Internal,
    ];

    /// Text, HTTP status and CLI exit code.
    const fn row(self) -> (&'static str, u16, u8) {
        match self {
            Self::Invalid => ("invalid", 422, 10),
            Self::BadJson => ("bad_json", 400, 11),
            Self::BadSignature => ("bad_signature", 401, 12),
            Self::Unauthorized => ("unauthorized", 401, 13),
            Self::Forbidden => ("forbidden", 403, 14),
            Self::NotFound => ("not_found", 404, 15),
            Self::MethodNotAllowed => ("method_not_allowed", 405, 16),
            Self::Conflict => ("conflict", 409, 17),
            Self::TooLarge => ("too_large", 413, 18),
            Self::QueueFull => ("queue_full", 429, 19),
            Self::FunctionError => ("function_error", 502, 20),
            Self::FunctionOom => ("function_oom", 502, 21),
            Self::RuntimeError => ("runtime_error", 502, 22),
            Self::FunctionTimeout => ("function_timeout", 504, 23),
            Self::Cancelled => ("cancelled", 409, 24),
            Self::SandboxLost => ("sandbox_lost", 503, 25),
            Self::StoreDown => ("store_down", 503, 26),
            Self::DiskLow => ("disk_low", 503, 27),
            Self::PreconditionFailed => ("precondition_failed", 412, 28),
            Self::Internal => ("internal", 500, 70),
        }
    }

    /// The stable text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> u16 {
        self.row().1
    }

    /// The exit code of the CLI.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        self.row().2
    }

    /// The code whose text is `text`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }

    /// Seconds after which a repeat makes sense, for those codes that pass by themselves.
    #[must_use]
    pub const fn retry_after(self) -> Option<u32> {
        match self {
            Self::QueueFull | Self::SandboxLost => Some(1),
            Self::StoreDown => Some(5),
            Self::DiskLow => Some(60),
            _ => None,
        }
    }

    /// The code of a call whose execution ended this way; `None` for `ok`.
    #[must_use]
    pub const fn of_outcome(kind: crate::outcome::OutcomeKind) -> Option<Self> {
        use crate::outcome::OutcomeKind as K;
        match kind {
            K::Ok => None,
            K::Error | K::Exit | K::Signal => Some(Self::FunctionError),
            K::Oom => Some(Self::FunctionOom),
            K::Timeout => Some(Self::FunctionTimeout),
            K::Cancelled => Some(Self::Cancelled),
            K::InitError | K::RuntimeError => Some(Self::RuntimeError),
            K::Lost => Some(Self::SandboxLost),
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A problem document (RFC 9457) as the API sends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The stable code.
    pub code: Code,
    /// The HTTP status, again in the body.
    pub status: u16,
    /// What is wrong, where, and what to do.
    pub detail: String,
    /// The execution that failed, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<crate::id::ExecutionId>,
    /// The invocation, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation: Option<crate::id::InvocationId>,
    /// How the execution ended, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<crate::outcome::Outcome>,
}
