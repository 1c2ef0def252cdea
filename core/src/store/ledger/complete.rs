//! Writing synchronous calls that have started and ended: one insert instead of an insert and an update.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::LazyLock;

use sqlx::{AssertSqlSafe, Execute as _};
use uuid::Uuid;

use super::batch::Write as _;
use super::finish::{self, Finishes};
use super::{CallStart, Finish, start};
use crate::clock::Timestamp;
use crate::store::{Store, StoreError};

/// The statement for calls of which none is on record, as it is unless a spool is read a second time. To ask that of Postgres for each
/// row costs half as much again as the row.
static ALL_NEW: LazyLock<String> =
    LazyLock::new(|| include_str!("complete.sql").replace("  ON CONFLICT DO NOTHING\n", ""));

impl Store {
    /// Writes calls from start to end. Returns the executions that were there before: they are as they were.
    pub(in crate::store) async fn write_complete(
        &self,
        calls: &[(&CallStart, &Finish)],
    ) -> Result<HashSet<Uuid>, StoreError> {
        if calls.is_empty() {
            return Ok(HashSet::new());
        }
        let (starts, ends): (Vec<&CallStart>, Vec<&Finish>) = calls.iter().copied().unzip();
        let (payloads, results) = (self.place_payloads(&starts).await?, self.place_results(&ends).await?);
        let start = start::Columns::of(starts.into_iter(), &payloads);
        let end = finish::Columns::of(ends.into_iter(), &results);
        let checked = || {
            sqlx::query_file_scalar!(
                "src/store/ledger/complete.sql",
                &start.invocations,
                &start.executions,
                &start.namespaces as &[&str],
                &start.functions as &[&str],
                &start.revisions as &[&str],
                &start.cause_kinds as &[&str],
                &start.causes,
                &start.resets as &[&str],
                &start.content_types as &[Option<Cow<'_, str>>],
                &start.payloads as &[&[u8]],
                &start.sizes,
                &start.deadlines as &[Option<Timestamp>],
                &start.created,
                &end.states as &[&str],
                &end.invocation_states as &[&str],
                &end.outcomes as &[&str],
                &end.details as &[Option<String>],
                &end.results as &[Option<&[u8]>],
                &end.result_types as &[Option<&str>],
                &end.start_kinds as &[Option<&str>],
                &end.sandboxes as &[Option<Cow<'_, str>>],
                &end.started as &[Option<Timestamp>],
                &end.cpu as &[Option<i64>],
                &end.memory as &[Option<i64>],
                &end.remains as &[Option<String>],
                &end.log_bytes,
                &end.log_dropped,
                &end.at,
                self.inner.server,
                &start.payload_files as &[Option<&str>],
                &end.result_files as &[Option<&str>],
                &end.waited as &[Option<i64>],
                &end.started_in as &[Option<i64>],
            )
        };
        let arguments = checked().take_arguments().map_err(sqlx::Error::Encode)?.unwrap_or_default();
        let all_new = sqlx::query_scalar_with(AssertSqlSafe(ALL_NEW.as_str()), arguments);
        let mut lane = self.hot().take().await?;
        let known: Vec<Uuid> = match all_new.fetch_all(&mut *lane).await {
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => checked().fetch_all(&mut *lane).await?,
            other => other?,
        };
        lane.keep();
        Ok(known.into_iter().collect())
    }

    /// Writes ends of executions that are there and have not ended; others are passed over.
    pub(in crate::store) async fn write_ends(&self, ends: &[&Finish]) -> Result<(), StoreError> {
        if !ends.is_empty() {
            Finishes(self.clone()).write(ends).await?;
        }
        Ok(())
    }
}
