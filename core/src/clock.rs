//! The one place that reads the wall clock.

use chrono::{DateTime, Utc};

/// A moment on the wall clock, always UTC.
pub type Timestamp = DateTime<Utc>;

/// The current moment, cut to the microseconds that Postgres keeps, so that what is stored equals what was written.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Timestamp {
    let now = Utc::now();
    DateTime::from_timestamp_micros(now.timestamp_micros()).unwrap_or(now)
}
