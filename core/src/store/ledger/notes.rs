//! Notes that executions begin and run: written late and together, so that one which ends soon costs nothing.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use uuid::Uuid;

use super::Running;
use crate::clock::Timestamp;
use crate::id::{ExecutionId, InvocationId};
use crate::store::queue::Claimed;
use crate::store::text::clean;
use crate::store::{Store, StoreError};

/// How long notes are gathered. An execution that ends before is written once instead of twice.
const GATHER: Duration = Duration::from_millis(100);

/// Most notes that wait; more are dropped, for their ends carry them too.
const BOUND: usize = 8192;

/// How often a note is tried whose row somebody else holds, or is gone.
const TRIES: u32 = 5;

/// What is to be noted of an execution.
#[derive(Debug, Default)]
struct Note {
    /// Its claim: it is not on record yet.
    claim: Option<(InvocationId, i64)>,
    /// It runs.
    running: Option<Running>,
    /// How often that was tried.
    tries: u32,
}

/// Notes that wait.
#[derive(Debug, Default)]
pub(super) struct Notes {
    waiting: Mutex<HashMap<ExecutionId, Note>>,
    some: Notify,
}

impl Notes {
    fn lock(&self) -> MutexGuard<'_, HashMap<ExecutionId, Note>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn claimed(&self, claimed: &Claimed) {
        self.change(claimed.execution, |note| note.claim = Some((claimed.invocation, claimed.fence)));
    }

    pub(super) fn running(&self, running: Running) {
        self.change(running.execution, |note| note.running = Some(running));
    }

    fn change(&self, execution: ExecutionId, change: impl FnOnce(&mut Note)) {
        let mut waiting = self.lock();
        if waiting.len() < BOUND || waiting.contains_key(&execution) {
            change(waiting.entry(execution).or_default());
            drop(waiting);
            self.some.notify_one();
        }
    }

    pub(super) fn forget(&self, execution: ExecutionId) {
        self.lock().remove(&execution);
    }

    /// Takes back what was not written; what came meanwhile is newer.
    fn again(&self, notes: impl IntoIterator<Item = (ExecutionId, Note)>) {
        for (execution, note) in notes {
            if note.tries < TRIES {
                self.change(execution, |newer| {
                    newer.claim = newer.claim.or(note.claim);
                    newer.running = newer.running.take().or(note.running);
                    newer.tries = note.tries + 1;
                });
            }
        }
    }
}

/// Writes notes.
#[derive(Debug)]
pub(super) struct Writer {
    store: Store,
    notes: Arc<Notes>,
}

impl Writer {
    pub(super) const fn new(store: Store, notes: Arc<Notes>) -> Self {
        Self { store, notes }
    }

    /// Writes for ever.
    pub(super) async fn run(self) {
        loop {
            self.notes.some.notified().await;
            tokio::time::sleep(GATHER).await;
            let batch = std::mem::take(&mut *self.notes.lock());
            let (claims, calls): (HashMap<_, _>, HashMap<_, _>) =
                batch.into_iter().partition(|(_, note)| note.claim.is_some());
            if let Err(error) = self.store.note_calls(&calls).await {
                tracing::debug!(error = %error, notes = calls.len(), "notes of running executions were not written");
                self.notes.again(calls);
            }
            let written = self.store.note_claims(&claims).await.unwrap_or_else(|error| {
                tracing::debug!(error = %error, notes = claims.len(), "notes of claimed executions were not written");
                HashSet::new()
            });
            self.notes.again(claims.into_iter().filter(|(execution, _)| !written.contains(&execution.uuid())));
        }
    }
}

impl Store {
    /// Notes that executions run that are on record. Rows that are being ended right now are passed over: to wait for them in another
    /// order than their writer's could be a deadlock.
    async fn note_calls(&self, notes: &HashMap<ExecutionId, Note>) -> Result<(), StoreError> {
        if notes.is_empty() {
            return Ok(());
        }
        // A call whose start still waits in the spool has no row yet.
        self.settled().await;
        let columns = Columns::of(notes);
        sqlx::query!(
            "WITH due AS (
               SELECT n.* FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[]) AS n (id, start_kind, sandbox, at)
               JOIN executions x ON x.id = n.id
               WHERE x.outcome IS NULL AND x.started_at IS NULL
               FOR NO KEY UPDATE OF x SKIP LOCKED
             )
             UPDATE executions x SET state = 'running', start_kind = d.start_kind, sandbox = d.sandbox, started_at = d.at
             FROM due d WHERE x.id = ANY($1) AND d.id = x.id",
            &columns.executions,
            &columns.starts as &[Option<&str>],
            &columns.sandboxes as &[Option<Cow<'_, str>>],
            &columns.at as &[Option<Timestamp>],
        )
        .execute(self.relaxed())
        .await?;
        Ok(())
    }

    /// Puts executions of claimed work on record, and whether they run. Returns those whose claims hold; rows of the queue that
    /// somebody is at are passed over.
    async fn note_claims(&self, notes: &HashMap<ExecutionId, Note>) -> Result<HashSet<Uuid>, StoreError> {
        if notes.is_empty() {
            return Ok(HashSet::new());
        }
        let columns = Columns::of(notes);
        let noted = sqlx::query_file_scalar!(
            "src/store/ledger/note_claims.sql",
            &columns.invocations,
            &columns.fences,
            &columns.starts as &[Option<&str>],
            &columns.sandboxes as &[Option<Cow<'_, str>>],
            &columns.at as &[Option<Timestamp>],
            &columns.claimed_at as &[Option<Timestamp>],
        )
        .fetch_all(self.relaxed())
        .await?;
        Ok(noted.into_iter().collect())
    }
}

/// Notes, column by column.
#[derive(Default)]
struct Columns<'a> {
    executions: Vec<Uuid>,
    invocations: Vec<Uuid>,
    fences: Vec<i64>,
    starts: Vec<Option<&'static str>>,
    sandboxes: Vec<Option<Cow<'a, str>>>,
    at: Vec<Option<Timestamp>>,
    claimed_at: Vec<Option<Timestamp>>,
}

impl<'a> Columns<'a> {
    fn of(notes: &'a HashMap<ExecutionId, Note>) -> Self {
        let mut columns = Self::default();
        for (execution, note) in notes {
            let running = note.running.as_ref();
            columns.executions.push(execution.uuid());
            columns.starts.push(running.map(|running| running.start.as_str()));
            columns.sandboxes.push(running.map(|running| clean(&running.sandbox)));
            columns.at.push(running.map(|running| running.at));
            columns.claimed_at.push(execution.created_at());
            if let Some((invocation, fence)) = note.claim {
                columns.invocations.push(invocation.uuid());
                columns.fences.push(fence);
            }
        }
        columns
    }
}
