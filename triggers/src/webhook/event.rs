//! What an adapter reads out of a verified request.

use serde::Serialize;

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
    /// The event in the shape that all forges share, where the adapter knows one.
    pub normalised: Option<Normalised>,
}

/// An event in the shape that all forges share: code sees it as `cause.normalised`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Normalised {
    /// Who sent it: `github`.
    pub provider: &'static str,
    /// `push`, `tag`, `pull_request`, or the sender's own name of the event.
    pub kind: String,
    /// `owner/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The full ref, for example `refs/heads/main`.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The branch, of a pull request the one it goes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The commit; absent where the push removed the ref.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha: Option<String>,
    /// Login of the person behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Number of the pull request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<u64>,
}
