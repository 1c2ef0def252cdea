//! Integration tests: one binary that drives the real `runlet` with a real Postgres and real sandboxes.
//!
//! Each test starts a server of its own (`host`) and ends with the same questions: is a process, mount, cgroup or
//! network namespace of it left? `support` modules first, then one module per promise.

mod calls;
mod host;
mod http;
mod leaks;
mod wait;

mod arrows;
mod asynchronous;
mod cli;
mod crash;
mod cron;
mod deploy;
mod faults;
mod lifecycle;
mod limits;
mod outcomes;
mod output;
mod sandbox;
mod spool;
mod tokens;
mod warm;
mod webhook;
