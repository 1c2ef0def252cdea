//! Retention: history that is older than its namespace wants is removed, whole days by dropping their partitions.
//!
//! ```text
//! a day that nobody wants any more   DETACH ... CONCURRENTLY, then DROP: nobody waits for it
//! a namespace that wants less        rows of its old days, some hundreds at a time, with long pauses   (rows)
//! files of either                    by the server that has them, once no row can name them             (files)
//! ```
//! A day that the queue names stays, however old. Everything can be begun again at any point; one server at a time removes rows.

mod days;
mod files;
mod rows;

use std::collections::BTreeMap;

use chrono::{Days, NaiveDate};
use sqlx::{ConnectOptions as _, PgConnection};

use super::{Store, StoreError};
use crate::clock::Timestamp;
use crate::name::Namespace;

/// How many days of history are kept; `None`: all.
pub type Keep = Option<u32>;

/// How many days of history are kept of whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Of a namespace that is not named.
    pub usual: Keep,
    /// Of these.
    pub namespaces: BTreeMap<Namespace, Keep>,
}

impl Retention {
    /// The least that may be kept: an execution lasts a day at most, and its end must find its row.
    pub const LEAST: u32 = 2;

    /// How long `namespace` keeps its history.
    #[must_use]
    pub fn of(&self, namespace: &Namespace) -> Keep {
        self.namespaces.get(namespace).copied().unwrap_or(self.usual)
    }

    /// How long anybody does.
    #[must_use]
    pub fn longest(&self) -> Keep {
        let mut longest = self.usual?;
        for keep in self.namespaces.values() {
            longest = longest.max((*keep)?);
        }
        Some(longest)
    }

    /// The first day that is kept where `keep` days are: today and so many before it.
    fn first_kept(keep: u32, today: NaiveDate) -> NaiveDate {
        today.checked_sub_days(Days::new(u64::from(keep.max(Self::LEAST)))).unwrap_or(NaiveDate::MIN)
    }

    /// The day on which what happened on `day` is removed.
    #[must_use]
    pub fn removed_on(keep: Keep, day: NaiveDate) -> Option<NaiveDate> {
        day.checked_add_days(Days::new(u64::from(keep?.max(Self::LEAST)) + 1))
    }
}

/// What a round has removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Days, with all their partitions.
    pub days: u64,
    /// Rows of namespaces that keep less.
    pub rows: u64,
    /// Directories of files.
    pub shelves: u64,
}

impl Store {
    /// Removes what is too old by now. Another server may be at it: then only this server's own files are looked at.
    ///
    /// # Errors
    /// When the database does not answer, or somebody held a day for too long; the next round goes on.
    pub async fn retain(&self, retention: &Retention, now: Timestamp) -> Result<Removed, StoreError> {
        let today = now.date_naive();
        let mut removed = Removed::default();
        // A connection of its own: what runs here may take longer than everyday work, and DETACH ... CONCURRENTLY bears no transaction.
        let options = self.inner.options.clone().options([("lock_timeout", "2s"), ("statement_timeout", "10min")]);
        let mut connection = options.connect().await?;
        if lead(&mut connection).await? {
            if let Some(keep) = retention.longest() {
                removed.days = days::drop_before(&mut connection, Retention::first_kept(keep, today)).await?;
            }
            removed.rows = rows::remove(self, retention, today).await?;
            rows::remove_orphans(self, Retention::first_kept(Retention::LEAST, today)).await?;
        }
        removed.shelves = self.remove_files(&mut connection, retention, today).await?;
        sqlx::Connection::close(connection).await?;
        Ok(removed)
    }
}

/// Whether this connection may remove rows; it may until it is closed.
async fn lead(connection: &mut PgConnection) -> Result<bool, StoreError> {
    let lead = sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock(hashtextextended('runlet_retain', 0)) AS "lead!""#)
        .fetch_one(connection)
        .await?;
    Ok(lead)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    #[test]
    fn whoever_keeps_longest_decides_about_whole_days() {
        let name = |text: &str| Namespace::new(text).unwrap();
        let mut retention = Retention { usual: Some(30), namespaces: BTreeMap::from([(name("a"), Some(7))]) };
        assert_eq!(
            (retention.longest(), retention.of(&name("a")), retention.of(&name("b"))),
            (Some(30), Some(7), Some(30))
        );
        retention.namespaces.insert(name("b"), Some(90));
        assert_eq!(retention.longest(), Some(90));
        retention.namespaces.insert(name("c"), None);
        assert_eq!(retention.longest(), None);
    }

    #[test]
    fn so_many_whole_days_are_kept_besides_today() {
        assert_eq!(Retention::first_kept(30, day("2026-11-22")), day("2026-10-23"));
        assert_eq!(Retention::first_kept(0, day("2026-11-22")), day("2026-11-20"));
        let removed_on = Retention::removed_on(Some(30), day("2026-10-23")).unwrap();
        assert_eq!(removed_on, day("2026-11-23"));
        assert!(Retention::first_kept(30, removed_on) > day("2026-10-23"));
        assert_eq!(Retention::removed_on(None, day("2026-10-23")), None);
    }
}
