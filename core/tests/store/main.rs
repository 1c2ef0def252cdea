//! The store against a real Postgres: one private instance for the whole binary, one database for each test.

mod accept;
mod cancel;
mod claim;
mod function;
mod history;
mod host;
mod ledger;
mod private;
mod schema;
mod token;
mod wakeup;
