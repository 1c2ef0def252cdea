//! Day partitions: made ahead of time.

use chrono::{Days, NaiveDate, TimeDelta};

use super::{Store, StoreError};
use crate::clock::Timestamp;

impl Store {
    /// Makes the partitions of today and the coming two days where they are missing. Idempotent, safe on many servers at once.
    /// No more are made ahead than are needed to be safe: every statement that ends executions looks at all that there are.
    /// Forgets, on the way, dedup keys that have expired and counters of past days.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn make_partitions(&self, now: Timestamp) -> Result<(), StoreError> {
        let today = now.date_naive();
        // Shortly after midnight ids of the day before may still come.
        let first = (now - TimeDelta::hours(1)).date_naive();
        let last = today.checked_add_days(Days::new(2)).unwrap_or(today);
        let made =
            sqlx::query_scalar!("SELECT runlet_make_partitions($1, $2)", first, last).fetch_one(self.pool()).await?;
        tracing::debug!(made, "day partitions are there");
        sqlx::query!("DELETE FROM dedup_keys WHERE expires < now()").execute(self.relaxed()).await?;
        sqlx::query!("DELETE FROM refused_bodies WHERE day < $1", first).execute(self.relaxed()).await?;
        Ok(())
    }

    /// Makes the partitions of the days from `first` to `last` where they are missing.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(super) async fn make_days(&self, first: NaiveDate, last: NaiveDate) -> Result<(), StoreError> {
        sqlx::query_scalar!("SELECT runlet_make_partitions($1, $2)", first, last).fetch_one(self.pool()).await?;
        Ok(())
    }
}
