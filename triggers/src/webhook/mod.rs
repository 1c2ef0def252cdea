//! Webhooks: a signed request to a hook path becomes a delivery on record and the invocations that its rules ask for.
//!
//! ```text
//! request ─> Receiver ─> hook's triggers (store) ─> Adapter::verify ─> Adapter::read ─> rules ─> Engine::submit
//!                │                                     │ refused         │ refused        │ nobody wants it
//!                └ unknown path: stores nothing        └─────────────────┴────────────────┴─> delivery on record
//! ```
//! Which adapter speaks for which sender is not known here: `runlet-integrations` brings them.

mod adapter;
mod arrival;
mod event;
mod examine;
mod failure;
mod fields;
mod fingerprint;
mod headers;
mod normalised;
mod receive;
mod rules;

pub use adapter::{Adapter, AdapterOf, Refusal, Request};
pub use arrival::Incoming;
pub use event::{Event, EventKind, Label};
pub use examine::{Examined, examine};
pub use failure::Refused;
pub use fingerprint::{FingerprintKey, is_credential};
pub use headers::{Ambiguous, Headers};
pub use normalised::Normalised;
pub use receive::{Answer, Receiver};
pub use rules::{Decision, decide, matches};

pub(crate) use fields::unmatched;
pub(crate) use rules::matches as glob_matches;
