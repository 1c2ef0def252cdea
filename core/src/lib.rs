//! The nouns of runlet and its ledger: what every other room speaks about.
//!
//! `core` knows Postgres ([`store`]) and nothing else of the outside world: no HTTP, no kernel, no sandbox.
//! The words are those of `docs/ARCHITECTURE.md`: one word per idea.

pub mod backoff;
mod base32;
pub mod cause;
pub mod clock;
pub mod cloudevent;
#[cfg(test)]
mod contract;
pub mod disk;
pub mod engine;
pub mod execution;
pub mod finding;
pub mod form;
pub mod id;
pub mod invocation;
pub mod limits;
pub mod lineage;
pub mod manifest;
pub mod metric;
pub mod name;
pub mod outcome;
pub mod precondition;
pub mod problem;
mod schema;
pub mod secret;
pub mod settings;
pub mod store;
pub mod target;
pub mod token;
pub mod trace;
pub mod unit;
