//! The seam to the senders: who checks a signature and reads the event.

use std::fmt;

use bytes::Bytes;
use runlet_core::clock::Timestamp;
use runlet_core::manifest::AdapterKind;
use runlet_core::problem::Code;
use runlet_core::secret::Secret;
use runlet_core::store::delivery::Verdict;

use super::event::{Event, Label};
use super::headers::{Ambiguous, Headers};

/// A request as it came in: nothing of it is trusted before [`Adapter::verify`] has said yes.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its headers.
    pub headers: &'a Headers,
    /// Its body, byte for byte.
    pub body: &'a Bytes,
    /// When it came, for signatures that are good for a while only.
    pub at: Timestamp,
}

/// Why a request is not an event. The texts are told to the sender and kept on record; they never hold a value of the
/// request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The signature is missing or wrong.
    #[error("{0}")]
    Signature(String),
    /// The body is not the JSON that it says it is.
    #[error("{0}")]
    Body(String),
    /// A header breaks a rule.
    #[error("{0}")]
    Header(String),
}

impl Refusal {
    /// The stable code that the sender gets.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Signature(_) => Code::BadSignature,
            Self::Body(_) => Code::BadJson,
            Self::Header(_) => Code::Invalid,
        }
    }

    /// The verdict that goes on record.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        match self {
            Self::Signature(_) => Verdict::BadSignature,
            Self::Body(_) | Self::Header(_) => Verdict::BadBody,
        }
    }
}

impl From<Ambiguous> for Refusal {
    fn from(error: Ambiguous) -> Self {
        Self::Header(error.to_string())
    }
}

/// One kind of sender: how it signs, and what its requests mean.
pub trait Adapter: Send + Sync + fmt::Debug {
    /// Looks at the hook's secret alone: whether signatures can be checked with it. Asked when a function is deployed.
    ///
    /// # Errors
    /// What is wrong with it; never a part of it.
    fn usable(&self, secret: &Secret) -> Result<(), String>;

    /// Checks the signature over the raw bytes, in constant time. Looks at nothing else. A hook without a secret has an empty one.
    ///
    /// # Errors
    /// [`Refusal::Signature`] when it is missing, malformed or wrong.
    fn verify(&self, request: &Request<'_>, secret: &Secret) -> Result<(), Refusal>;

    /// What the headers say about the delivery.
    ///
    /// # Errors
    /// [`Refusal::Header`] when one of them comes twice or is not what it has to be.
    fn label(&self, headers: &Headers) -> Result<Label, Refusal>;

    /// Reads a verified request.
    ///
    /// # Errors
    /// [`Refusal::Body`] or [`Refusal::Header`] when it is not what it says it is.
    fn read(&self, request: &Request<'_>) -> Result<Event, Refusal>;
}

/// Finds the adapter of a kind; `runlet-integrations` has it.
pub type AdapterOf = fn(AdapterKind) -> &'static dyn Adapter;
