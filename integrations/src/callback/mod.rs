//! Telling others how asynchronous work ended: another function, a queue, or an address on the network, signed as Standard Webhooks says.
//!
//! ```text
//!  outbox (core) ──claim──► service ──► message ──► function: submitted to the engine, once, by a key
//!                              │            ├─────► queue: published, here in one transaction with what came of it
//!                              │            └─────► http: address checked, signed, sent
//!                              └── what came of it, and when it is tried again, goes back on record
//! ```
//! An address is of somebody's choosing, and the server has its own place in the network: see [`Networks`].

mod connect;
mod message;
mod networks;
mod send;
mod service;

pub use networks::{BadNetworks, Networks};
pub use service::{Options, Service};
