//! Talking to code in a sandbox: a runner that stays and serves one call after another over fd 3 ([`Session`]) or several at a
//! time ([`Crew`]), or one process per call ([`run_once`]).
//!
//! This module owns the conversation, the bytes that the code writes, and the word for how a call ended. It refuses to
//! know which function it serves, who asked, and where output and results go.

mod answer;
mod blank;
mod channel;
mod crew;
mod greeting;
mod native;
mod oneshot;
mod output;
mod runner;
mod scratch;
mod spout;
mod supervise;
mod verdict;

use std::fmt;

use bytes::Bytes;
use runlet_core::engine::Stream;
use runlet_core::outcome::Outcome;
use serde_json::value::RawValue;

use crate::host::sandbox::ProcessSpec;

pub use blank::Blank;
pub(crate) use crew::{Crew, Joined, Leave, Requests, Terms, Ticket, serve, ticket};
pub use native::Session;
pub use oneshot::run_once;
pub(crate) use output::Output;
pub use spout::Spout;

/// Where output goes while an execution runs.
pub trait OutputSink: Send {
    /// Takes the next bytes of a stream; called in their order. Whoever writes waits for it, so a slow sink slows the code down.
    fn write(&mut self, stream: Stream, bytes: Bytes) -> impl Future<Output = ()> + Send;
}

/// A runner to start, and what to tell it first.
#[derive(Clone)]
pub struct Launch {
    /// Its process; it must ask for a channel.
    pub process: ProcessSpec,
    /// Body of the init frame.
    pub init: serde_json::Value,
}

impl From<runlet_runtimes::launch::Launch> for ProcessSpec {
    fn from(launch: runlet_runtimes::launch::Launch) -> Self {
        let runlet_runtimes::launch::Launch { argv, env, cwd, channel, .. } = launch;
        Self { argv, env, cwd, stdin: false, channel, files: Vec::new() }
    }
}

impl fmt::Debug for Launch {
    /// Environment and init may hold secrets: neither is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launch").field("argv", &self.process.argv).finish_non_exhaustive()
    }
}

/// How the body of a call becomes the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyKind {
    /// It is the JSON text of the event.
    Json,
    /// The event is the base64 text of these raw bytes.
    Base64,
    /// There is none: the event is null.
    None,
}

/// One call.
#[derive(Clone)]
pub struct Invocation {
    /// What the code is told besides the event, as JSON.
    pub context: Box<RawValue>,
    /// How to read the body.
    pub body_kind: BodyKind,
    /// The body.
    pub body: Bytes,
}

impl fmt::Debug for Invocation {
    /// Shows no payload and no header.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { body_kind, body, .. } = self;
        f.debug_struct("Invocation").field("body_kind", body_kind).field("length", &body.len()).finish_non_exhaustive()
    }
}

/// How a call ended.
pub struct Invoked {
    /// The word for it, with what there is to tell.
    pub outcome: Outcome,
    /// What the code returned; empty unless the outcome is `ok`.
    pub result: Bytes,
    /// Content type of the result.
    pub content_type: &'static str,
    /// Whether the sandbox may serve another call. If not, it has been told to end (or has ended).
    pub reusable: bool,
    /// Whether the runner is known to have gone before it had read the whole call.
    pub unread: bool,
}

impl Invoked {
    /// A call that has no result; its sandbox is used up.
    const fn failed(outcome: Outcome) -> Self {
        Self { outcome, result: Bytes::new(), content_type: content_type::JSON, reusable: false, unread: false }
    }
}

impl fmt::Debug for Invoked {
    /// Shows no result.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invoked")
            .field("outcome", &self.outcome)
            .field("length", &self.result.len())
            .field("reusable", &self.reusable)
            .finish_non_exhaustive()
    }
}

/// The content types that results have.
mod content_type {
    pub(super) const JSON: &str = "application/json";
    pub(super) const LINES: &str = "application/x-ndjson";
    pub(super) const TEXT: &str = "text/plain; charset=utf-8";
    pub(super) const BYTES: &str = "application/octet-stream";
}
