//! Outside events become invocations.
//!
//! A trigger sees the engine as `dyn Engine` and the store, nothing of sandboxes and nothing of HTTP: the server hands
//! in headers and bytes.

pub mod cron;
pub mod queue;
mod tend;
pub mod webhook;
