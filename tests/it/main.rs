//! Integration tests: one binary that drives the real `runlet` with a real Postgres and real sandboxes.
//!
//! Each test starts a server of its own (`host`) and ends with the same questions: is a process, mount, cgroup or
//! network namespace of it left? `support` modules first, then one module per promise.

mod calls;
mod contract;
mod edge;
mod host;
mod http;
mod leaks;
mod wait;

mod aliases;
mod api;
mod arrows;
mod asynchronous;
mod callbacks;
mod ci;
mod cli;
mod crash;
mod cron;
mod custom;
mod deploy;
mod disk;
mod faults;
mod fork;
mod history;
mod kept;
mod lifecycle;
mod limits;
mod metrics;
mod node;
mod outcomes;
mod output;
mod peers;
mod postgres;
mod queue;
mod retry;
mod room;
mod sandbox;
mod schemathesis;
mod servers;
mod shared;
mod slow;
mod soak;
mod spool;
mod stem;
mod stream;
mod tls;
mod tokens;
mod trace;
mod upgrade;
mod warm;
mod webhook;
mod webhook_gitlab;
mod webhook_rules;
