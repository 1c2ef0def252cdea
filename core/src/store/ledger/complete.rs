//! Writing synchronous calls that have started and ended: one insert instead of an insert and an update.

use std::borrow::Cow;
use std::collections::HashSet;

use sqlx::Connection as _;
use sqlx::error::BoxDynError;
use uuid::Uuid;

use super::batch::Write as _;
use super::finish::{self, Finishes};
use super::{CallStart, Finish, start};
use crate::clock::Timestamp;
use crate::store::copy::{Jsonb, Rows};
use crate::store::{Store, StoreError};

/// Bytes of a row without its bodies, roughly.
const ROW: usize = 512;

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
        match self.copy_new(&start, &end).await {
            Ok(()) => Ok(HashSet::new()),
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => self.insert_new(&start, &end).await,
            Err(error) => Err(error.into()),
        }
    }

    /// Writes calls of which none is on record, as it is unless a spool is read a second time. To ask that of Postgres for each row, and
    /// to hand it the rows column by column, costs as much as the rows.
    async fn copy_new(&self, start: &start::Columns<'_>, end: &finish::Columns<'_>) -> Result<(), sqlx::Error> {
        let called = invocations(start, end).map_err(sqlx::Error::Encode)?;
        let ended = executions(start, end, &self.inner.server).map_err(sqlx::Error::Encode)?;
        let mut lane = self.hot().take().await?;
        let mut transaction = lane.begin().await?;
        called.copy(INVOCATIONS, &mut transaction).await?;
        ended.copy(EXECUTIONS, &mut transaction).await?;
        transaction.commit().await?;
        lane.keep();
        Ok(())
    }

    /// Writes calls of which some may be on record. Returns the executions of those.
    async fn insert_new(
        &self,
        start: &start::Columns<'_>,
        end: &finish::Columns<'_>,
    ) -> Result<HashSet<Uuid>, StoreError> {
        let statement = sqlx::query_file_scalar!(
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
        );
        let mut lane = self.hot().take().await?;
        let known: Vec<Uuid> = statement.fetch_all(&mut *lane).await?;
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

const INVOCATIONS: &str = "COPY invocations (id, namespace, function, revision, cause_kind, cause, state, outcome, detail, attempts,
    executions, content_type, payload, payload_size, result, result_type, deadline, created_at, finished_at, payload_file, result_file)
  FROM STDIN (FORMAT binary)";

/// The invocations of calls.
fn invocations(start: &start::Columns<'_>, end: &finish::Columns<'_>) -> Result<Rows, BoxDynError> {
    let bodies = start.payloads.iter().map(|payload| payload.len()).sum::<usize>()
        + end.results.iter().flatten().map(|result| result.len()).sum::<usize>();
    let mut rows = Rows::with_capacity(start.invocations.len() * ROW + bodies);
    for at in 0..start.invocations.len() {
        rows.row(21);
        rows.put(start.invocations[at])?;
        rows.put(start.namespaces[at])?;
        rows.put(start.functions[at])?;
        rows.put(start.revisions[at])?;
        rows.put(start.cause_kinds[at])?;
        rows.put(Jsonb(&start.causes[at]))?;
        rows.put(end.invocation_states[at])?;
        rows.put(end.outcomes[at])?;
        rows.put(end.details[at].as_deref().map(Jsonb))?;
        rows.put(1_i32)?;
        rows.put([start.executions[at]])?;
        rows.put(start.content_types[at].as_deref())?;
        rows.put(start.payloads[at])?;
        rows.put(start.sizes[at])?;
        rows.put(end.results[at])?;
        rows.put(end.result_types[at])?;
        rows.put(start.deadlines[at])?;
        rows.put(start.created[at])?;
        rows.put(end.at[at])?;
        rows.put(start.payload_files[at])?;
        rows.put(end.result_files[at])?;
    }
    Ok(rows)
}

const EXECUTIONS: &str = "COPY executions (id, invocation, namespace, function, revision, cause_kind, attempt, state, outcome, detail,
    server, start_kind, sandbox, reset, cpu_us, memory_peak, remains, log_bytes, log_dropped, created_at, started_at, finished_at,
    wait_us, start_us)
  FROM STDIN (FORMAT binary)";

/// Their executions, on `server`.
fn executions(start: &start::Columns<'_>, end: &finish::Columns<'_>, server: &str) -> Result<Rows, BoxDynError> {
    let mut rows = Rows::with_capacity(start.executions.len() * ROW);
    for at in 0..start.executions.len() {
        rows.row(24);
        rows.put(start.executions[at])?;
        rows.put(start.invocations[at])?;
        rows.put(start.namespaces[at])?;
        rows.put(start.functions[at])?;
        rows.put(start.revisions[at])?;
        rows.put(start.cause_kinds[at])?;
        rows.put(1_i32)?;
        rows.put(end.states[at])?;
        rows.put(end.outcomes[at])?;
        rows.put(end.details[at].as_deref().map(Jsonb))?;
        rows.put(server)?;
        rows.put(end.start_kinds[at])?;
        rows.put(end.sandboxes[at].as_deref())?;
        rows.put(start.resets[at])?;
        rows.put(end.cpu[at])?;
        rows.put(end.memory[at])?;
        rows.put(end.remains[at].as_deref().map(Jsonb))?;
        rows.put(end.log_bytes[at])?;
        rows.put(end.log_dropped[at])?;
        rows.put(start.created[at])?;
        rows.put(end.started[at])?;
        rows.put(end.at[at])?;
        rows.put(end.waited[at])?;
        rows.put(end.started_in[at])?;
    }
    Ok(rows)
}
