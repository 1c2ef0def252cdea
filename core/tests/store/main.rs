//! The store against a real Postgres: one private instance for the whole binary, one database for each test.

#![expect(clippy::unwrap_used, reason = "what a helper cannot do fails the test that asked for it")]

mod accept;
mod at_once;
mod busy;
mod cancel;
mod claim;
mod cron;
mod function;
mod history;
mod host;
mod ledger;
mod message;
mod outbox;
mod private;
mod retention;
mod schema;
mod spill;
mod spool;
mod token;
mod upgrade;
mod wakeup;
