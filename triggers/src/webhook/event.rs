//! What an adapter reads out of a verified request.

use bytes::Bytes;

use super::normalised::Normalised;

/// What is to be done with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The rules decide.
    Deliver,
    /// The sender only tries the hook: it is answered and nothing runs.
    Ping,
}

/// What the headers alone say; known before the signature is checked, and so no more than a claim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Label {
    /// The event's name.
    pub event: Option<String>,
    /// The sender's id of the delivery: a repeat carries it again.
    pub provider_id: Option<String>,
}

/// A verified event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What is to be done with it.
    pub kind: EventKind,
    /// Name and id.
    pub label: Label,
    /// The branch it is about, without `refs/heads/`; tags have none.
    pub branch: Option<String>,
    /// Its JSON text, for rules that look into it; a body of another kind has none.
    pub payload: Option<Bytes>,
    /// The event in the shape that all forges share, where the adapter knows one.
    pub normalised: Option<Normalised>,
}
