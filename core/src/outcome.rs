//! How an execution ended.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The kind of an outcome; the words are stored, shown and matched everywhere as [`OutcomeKind::as_str`] gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeKind {
    /// The code returned a result.
    Ok,
    /// The code raised an error.
    Error,
    /// The process ended by itself with a status other than 0 (or with any status before it had answered).
    Exit,
    /// The process was ended by a signal that it was not runlet's doing.
    Signal,
    /// The kernel ended it for using more memory than its limit.
    Oom,
    /// It ran longer than its timeout.
    Timeout,
    /// Somebody cancelled it.
    Cancelled,
    /// The handler could not be loaded.
    InitError,
    /// The code broke the runtime protocol, or its result is larger than allowed.
    RuntimeError,
    /// What happened is unknown: the server or the sandbox went away under it.
    Lost,
}

impl OutcomeKind {
    /// Every kind, in the order of the documentation.
    pub const ALL: [Self; 10] = [
        Self::Ok,
        Self::Error,
        Self::Exit,
        Self::Signal,
        Self::Oom,
        Self::Timeout,
        Self::Cancelled,
        Self::InitError,
        Self::RuntimeError,
        Self::Lost,
    ];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::Oom => "oom",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::InitError => "init_error",
            Self::RuntimeError => "runtime_error",
            Self::Lost => "lost",
        }
    }

    /// The kind named `text`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl std::fmt::Display for OutcomeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How an execution ended, with what there is to tell about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Outcome {
    /// The kind.
    pub kind: OutcomeKind,
    /// Exit status of the process, for `exit` (and for `ok` of an `exec` function: 0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Number of the signal, for `signal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// What went wrong, in words for the function's owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorDetail>,
}

/// An error as the code raised it, or as runlet tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default, ToSchema)]
pub struct ErrorDetail {
    /// Type of the exception, or a word of runlet's own.
    #[serde(rename = "type")]
    pub kind: String,
    /// One line.
    pub message: String,
    /// Traceback lines; empty where there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trace: Vec<String>,
}

impl Outcome {
    /// An outcome of `kind` without details.
    #[must_use]
    pub const fn of(kind: OutcomeKind) -> Self {
        Self { kind, exit_code: None, signal: None, error: None }
    }

    /// The code returned a result.
    #[must_use]
    pub const fn ok() -> Self {
        Self::of(OutcomeKind::Ok)
    }

    /// The process ended with status `code`.
    #[must_use]
    pub const fn exit(code: i32) -> Self {
        Self { kind: OutcomeKind::Exit, exit_code: Some(code), signal: None, error: None }
    }

    /// The process was ended by signal number `signal`.
    #[must_use]
    pub const fn signal(signal: i32) -> Self {
        Self { kind: OutcomeKind::Signal, exit_code: None, signal: Some(signal), error: None }
    }

    /// An outcome of `kind` explained by `message`, in runlet's own words.
    #[must_use]
    pub fn because(kind: OutcomeKind, message: impl Into<String>) -> Self {
        let error = ErrorDetail { kind: kind.as_str().to_owned(), message: message.into(), trace: Vec::new() };
        Self { kind, exit_code: None, signal: None, error: Some(error) }
    }

    /// Whether it succeeded.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.kind == OutcomeKind::Ok
    }
}
