//! Outside events become invocations.
//!
//! A trigger sees the engine as `dyn Engine` and the store, nothing of sandboxes and nothing of HTTP: the server hands
//! in headers and bytes. Webhooks are here; schedules and queues get a module each when they are built.

pub mod webhook;
