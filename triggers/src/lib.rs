//! Outside events become invocations.
//!
//! A trigger sees the engine as `dyn Engine` and the store, nothing of sandboxes and nothing of HTTP: the server hands
//! in headers and bytes. Webhooks and schedules are here; queues get a module when they are built.

pub mod cron;
pub mod webhook;
