//! Queues: messages become invocations, and how these end decides about the messages.
//!
//! ```text
//!  broker ──► bridge ──► Store::publish ──► ack         choose (which trigger, which batch)      fate (done, again, dead)
//!                              │                           pure                                     pure
//!                              └──► messages ──► Service ──► Store::take ──► invocations ──end──► Store::settle
//! ```
//! The service keeps no state that another server could not rebuild.

mod broker;
mod choose;
mod event;
mod fate;
mod service;

pub use broker::{Bridge, BrokerConfig, BrokerKind, Brokers, NotPublished, Outgoing, Publishers};
pub use choose::choose;
pub use event::LINEAGE;
pub use fate::decide;
pub use service::Service;
