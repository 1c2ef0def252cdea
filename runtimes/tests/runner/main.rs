//! The real runner under the real interpreter, with this test as its host.

mod examples;
mod failures;
mod peer;
mod results;
mod streams;
