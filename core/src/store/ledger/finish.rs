//! Writing ends of executions, many at a time.

use std::borrow::Cow;
use std::collections::HashSet;

use sqlx::postgres::PgArguments;
use sqlx::{AssertSqlSafe, Execute as _};
use uuid::Uuid;

use super::batch::Write;
use super::{Finish, Running};
use crate::clock::Timestamp;
use crate::execution::{ExecutionState, StartKind};
use crate::invocation::InvocationState;
use crate::metric;
use crate::name::Namespace;
use crate::outcome::OutcomeKind;
use crate::store::message::may_report_failures;
use crate::store::queue::{MAX_LOST, Wakeup};
use crate::store::spill::{Placed, day_of};
use crate::store::text::{clean, count, detail, json};
use crate::store::{Store, StoreError};

/// Writes ends.
#[derive(Debug)]
pub(super) struct Finishes(pub(super) Store);

impl Write for Finishes {
    type What = Finish;
    type Answer = bool;

    fn weight(what: &Finish) -> usize {
        what.result.as_ref().map_or(0, |(bytes, _)| bytes.len())
    }

    async fn write(&self, batch: &[&Finish]) -> Result<Vec<bool>, StoreError> {
        let mut seen = HashSet::new();
        let first: Vec<bool> = batch.iter().map(|finish| seen.insert(finish.execution)).collect();
        let entries: Vec<&Finish> =
            batch.iter().zip(&first).filter(|(_, first)| **first).map(|(finish, _)| *finish).collect();
        let ended = self.end(&entries).await?;
        let written = |(finish, first): (&&Finish, bool)| first && ended.contains(&finish.execution.uuid());
        Ok(batch.iter().zip(first).map(written).collect())
    }
}

/// The states that an outcome leads to: of the execution, and of its invocation unless it is tried again.
const fn states(kind: OutcomeKind) -> (&'static str, &'static str) {
    let execution = ExecutionState::of_outcome(kind);
    let invocation = match execution {
        ExecutionState::Succeeded => "succeeded",
        ExecutionState::Cancelled => "cancelled",
        _ => "failed",
    };
    (execution.as_str(), invocation)
}

impl Store {
    /// The results of ends, large ones in files.
    pub(super) async fn place_results(&self, entries: &[&Finish]) -> Result<Vec<Option<Placed>>, StoreError> {
        let mut placed = Vec::with_capacity(entries.len());
        for finish in entries {
            placed.push(match &finish.result {
                Some((result, _)) => {
                    Some(self.place(finish.invocation.uuid(), finish.namespace.as_str(), result).await?)
                }
                None => None,
            });
        }
        Ok(placed)
    }
}

impl Finishes {
    /// Writes the ends of executions that have not ended and whose fence holds; returns those.
    async fn end(&self, entries: &[&Finish]) -> Result<HashSet<Uuid>, StoreError> {
        let (claimed, calls): (Vec<&Finish>, Vec<&Finish>) = entries.iter().partition(|entry| entry.fence.is_some());
        let mut ended = self.end_calls(&calls).await?;
        ended.extend(self.end_claimed(&claimed).await?);
        Ok(ended)
    }

    async fn end_calls(&self, entries: &[&Finish]) -> Result<HashSet<Uuid>, StoreError> {
        if entries.is_empty() {
            return Ok(HashSet::new());
        }
        let placed = self.0.place_results(entries).await?;
        let columns = Columns::of(entries.iter().copied(), &placed);
        let checked = sqlx::query_file_scalar!(
            "src/store/ledger/finish.sql",
            &columns.executions,
            &columns.invocations,
            &columns.states as &[&str],
            &columns.invocation_states as &[&str],
            &columns.outcomes as &[&str],
            &columns.details as &[Option<String>],
            &columns.results as &[Option<&[u8]>],
            &columns.result_types as &[Option<&str>],
            &columns.start_kinds as &[Option<&str>],
            &columns.sandboxes as &[Option<Cow<'_, str>>],
            &columns.started as &[Option<Timestamp>],
            &columns.cpu as &[Option<i64>],
            &columns.memory as &[Option<i64>],
            &columns.remains as &[Option<String>],
            &columns.log_bytes,
            &columns.log_dropped,
            &columns.at,
            least(&columns.executions),
            greatest(&columns.executions),
            least(&columns.invocations),
            greatest(&columns.invocations),
            &columns.result_files as &[Option<&str>],
            &columns.waited as &[Option<i64>],
            &columns.started_in as &[Option<i64>],
        );
        let mut lane = self.0.hot().take().await?;
        let ended = checked.fetch_all(&mut *lane).await?;
        lane.keep();
        Ok(ended.into_iter().collect())
    }

    async fn end_claimed(&self, entries: &[&Finish]) -> Result<HashSet<Uuid>, StoreError> {
        if entries.is_empty() {
            return Ok(HashSet::new());
        }
        let placed = self.0.place_results(entries).await?;
        let columns = Columns::of(entries.iter().copied(), &placed);
        let checked = || {
            sqlx::query_file!(
                "src/store/ledger/finish_claimed.sql",
                &columns.executions,
                &columns.invocations,
                &columns.fences as &[Option<i64>],
                &columns.states as &[&str],
                &columns.invocation_states as &[&str],
                &columns.outcomes as &[&str],
                &columns.details as &[Option<String>],
                &columns.results as &[Option<&[u8]>],
                &columns.result_types as &[Option<&str>],
                &columns.start_kinds as &[Option<&str>],
                &columns.sandboxes as &[Option<Cow<'_, str>>],
                &columns.started as &[Option<Timestamp>],
                &columns.cpu as &[Option<i64>],
                &columns.memory as &[Option<i64>],
                &columns.remains as &[Option<String>],
                &columns.log_bytes,
                &columns.log_dropped,
                &columns.pauses as &[Option<f64>],
                &columns.at,
                &columns.result_files as &[Option<&str>],
                &columns.waited as &[Option<i64>],
                &columns.started_in as &[Option<i64>],
                &columns.tell as &[Option<String>],
                least(&columns.invocations),
                greatest(&columns.invocations),
                MAX_LOST,
                &columns.claimed_at,
                &columns.deals,
            )
        };
        let rows = match shorter(entries, &columns) {
            Some(sql) => match self.end_shorter(sql, checked().take_arguments()).await {
                // The day is not there: nothing of it can be ended, which the whole statement says in its own words.
                Err(sqlx::Error::Database(error)) if error.code().is_some_and(|code| code == "42P01") => None,
                other => Some(other?),
            },
            None => None,
        };
        let rows = match rows {
            Some(rows) => rows,
            None => {
                let whole = checked()
                    .map(|row| (row.execution, row.invocation, row.again, row.namespace, row.queue, row.messages));
                whole.fetch_all(self.0.hot().pool()).await?
            }
        };
        if columns.tell.iter().any(Option::is_some) {
            self.0.inner.callbacks.notify_one();
        }
        Ok(self.0.tell_ends(rows))
    }

    /// The same statement, in fewer words.
    async fn end_shorter(&self, sql: String, arguments: Arguments) -> Result<Vec<EndedRow>, sqlx::Error> {
        let arguments = arguments.map_err(sqlx::Error::Encode)?.unwrap_or_default();
        let mut lane = self.0.hot().take().await?;
        let ended = sqlx::query_as_with(AssertSqlSafe(sql), arguments).fetch_all(&mut *lane).await?;
        lane.keep();
        Ok(ended)
    }
}

impl Store {
    /// Tells of what was ended, and of places that are free in queues. Returns the executions.
    fn tell_ends(&self, rows: Vec<EndedRow>) -> HashSet<Uuid> {
        let (mut ended, mut done, mut again) = (HashSet::new(), Vec::new(), false);
        for row in rows {
            match row {
                (Some(execution), Some(invocation), waits, ..) => {
                    ended.insert(execution);
                    again |= waits == Some(true);
                    done.extend((waits == Some(false)).then_some(invocation));
                }
                (.., Some(namespace), Some(queue), messages) => {
                    metric::messages("done", messages.unwrap_or_default().unsigned_abs());
                    self.tell(Wakeup::Messages(namespace, queue));
                }
                _ => {}
            }
        }
        self.tell_done(&done);
        self.inner.sweep.gone(done.len());
        if again {
            self.tell(Wakeup::Work);
        }
        ended
    }
}

/// What the statement is given.
type Arguments = Result<Option<PgArguments>, sqlx::error::BoxDynError>;

/// What it returns: execution, invocation and whether that is queued again; or else namespace and queue, and how many of its messages
/// were dealt with.
type EndedRow = (Option<Uuid>, Option<Uuid>, Option<bool>, Option<Namespace>, Option<String>, Option<i64>);

/// The statement for a batch whose ids are all of one day, as nearly every one is: on that day's partitions alone. Over all of history
/// it costs more with each day that is kept (decision 0015). It is without the parts that would find nothing to do: Postgres prepares
/// each of them all the same, every time.
fn shorter(entries: &[&Finish], columns: &Columns<'_>) -> Option<String> {
    const SQL: &str = include_str!("finish_claimed.sql");
    let one_day = |id: fn(&&Finish) -> Uuid| {
        let mut days = entries.iter().map(|entry| day_of(id(entry)));
        let first = days.next()?;
        days.all(|day| day == first).then(|| first.format("%Y%m%d"))
    };
    let (executions, invocations) =
        (one_day(|entry| entry.execution.uuid())?, one_day(|entry| entry.invocation.uuid())?);
    let well = entries.iter().all(|entry| entry.outcome.is_ok() && entry.tell.is_none());
    let deals = columns.deals.contains(&true);
    let mut sql = String::with_capacity(SQL.len());
    for part in SQL.split("-- part: ") {
        let spare =
            (well && part.starts_with("where something failed")) || (!deals && part.starts_with("where messages"));
        if !spare {
            // What is left of the line that names the part is a comment still.
            sql.push_str(if sql.is_empty() { "" } else { "-- " });
            sql.push_str(part);
        }
    }
    let sql = sql.replace("INTO executions AS x", &format!("INTO executions_{executions} AS x"));
    let sql = sql.replace("INTO invocations AS i", &format!("INTO invocations_{invocations} AS i"));
    Some(sql.replace("FROM invocations h", &format!("FROM invocations_{invocations} h")))
}

fn least(ids: &[Uuid]) -> Uuid {
    ids.iter().min().copied().unwrap_or_default()
}

fn greatest(ids: &[Uuid]) -> Uuid {
    ids.iter().max().copied().unwrap_or_default()
}

/// The entries of a batch, column by column.
#[derive(Default)]
pub(super) struct Columns<'a> {
    pub(super) executions: Vec<Uuid>,
    pub(super) invocations: Vec<Uuid>,
    pub(super) fences: Vec<Option<i64>>,
    pub(super) states: Vec<&'static str>,
    pub(super) invocation_states: Vec<&'static str>,
    pub(super) outcomes: Vec<&'static str>,
    pub(super) details: Vec<Option<String>>,
    pub(super) results: Vec<Option<&'a [u8]>>,
    pub(super) result_files: Vec<Option<&'a str>>,
    pub(super) result_types: Vec<Option<&'a str>>,
    pub(super) start_kinds: Vec<Option<&'static str>>,
    pub(super) sandboxes: Vec<Option<Cow<'a, str>>>,
    pub(super) started: Vec<Option<Timestamp>>,
    pub(super) cpu: Vec<Option<i64>>,
    pub(super) memory: Vec<Option<i64>>,
    pub(super) waited: Vec<Option<i64>>,
    pub(super) started_in: Vec<Option<i64>>,
    pub(super) remains: Vec<Option<String>>,
    pub(super) log_bytes: Vec<i64>,
    pub(super) log_dropped: Vec<i64>,
    pub(super) pauses: Vec<Option<f64>>,
    pub(super) tell: Vec<Option<String>>,
    pub(super) at: Vec<Timestamp>,
    /// When the execution was claimed: its id was made then.
    pub(super) claimed_at: Vec<Timestamp>,
    /// Whether nothing is left to decide about the messages that it was about.
    pub(super) deals: Vec<bool>,
}

impl<'a> Columns<'a> {
    /// Of entries, and of their results where they have been put.
    pub(super) fn of(entries: impl Iterator<Item = &'a Finish>, results: &'a [Option<Placed>]) -> Self {
        let mut columns = Self::default();
        for (finish, result) in entries.zip(results) {
            columns.push(finish, result.as_ref());
        }
        columns
    }

    fn push(&mut self, finish: &'a Finish, result: Option<&'a Placed>) {
        let (state, invocation_state) = states(finish.outcome.kind);
        let invocation_state = if finish.expired { InvocationState::Expired.as_str() } else { invocation_state };
        let running = finish.running.as_ref();
        self.executions.push(finish.execution.uuid());
        self.invocations.push(finish.invocation.uuid());
        self.fences.push(finish.fence);
        self.states.push(state);
        self.invocation_states.push(invocation_state);
        self.outcomes.push(finish.outcome.kind.as_str());
        self.details.push(detail(&finish.outcome));
        self.results.push(result.map(|result| result.bytes.as_ref()));
        self.result_files.push(result.and_then(|result| result.file.as_deref()));
        self.result_types.push(finish.result.as_ref().map(|(_, kind)| &**kind));
        self.start_kinds.push(running.map(|running| StartKind::as_str(running.start)));
        self.sandboxes.push(running.map(|running: &Running| clean(&running.sandbox)));
        self.started.push(running.map(|running| running.at));
        self.cpu.push(finish.usage.cpu_us);
        self.memory.push(finish.usage.memory_peak);
        self.waited.push(finish.usage.wait_us);
        self.started_in.push(finish.usage.start_us);
        self.remains.push(finish.remains.as_ref().map(json));
        self.log_bytes.push(count(finish.log_bytes));
        self.log_dropped.push(count(finish.log_dropped));
        self.pauses.push(finish.retry.map(|pause| pause.as_secs_f64()));
        self.tell.push(finish.tell.as_ref().map(json));
        self.at.push(finish.at);
        // Results of calls, of which there may be many, are not looked through.
        let told = || finish.result.as_ref().is_some_and(|(result, _)| may_report_failures(result));
        self.deals.push(finish.of_messages && finish.outcome.is_ok() && !told());
        self.claimed_at.push(finish.execution.created_at().unwrap_or(finish.at));
    }
}
