//! Notes that executions run: written late and together, so that one which ends soon costs nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use uuid::Uuid;

use super::Running;
use crate::id::ExecutionId;
use crate::store::text::clean;
use crate::store::{Store, StoreError};

/// How long notes are gathered. An execution that ends before is written once instead of twice.
const GATHER: Duration = Duration::from_millis(100);

/// Most notes that wait; more are dropped, for their ends carry them too.
const BOUND: usize = 8192;

/// Notes that wait.
#[derive(Debug, Default)]
pub(super) struct Notes {
    waiting: Mutex<HashMap<ExecutionId, Running>>,
    some: Notify,
}

impl Notes {
    fn lock(&self) -> MutexGuard<'_, HashMap<ExecutionId, Running>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, running: Running) {
        let mut waiting = self.lock();
        if waiting.len() < BOUND {
            waiting.insert(running.execution, running);
            drop(waiting);
            self.some.notify_one();
        }
    }

    pub(super) fn forget(&self, execution: ExecutionId) {
        self.lock().remove(&execution);
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
            let batch: Vec<Running> = self.notes.lock().drain().map(|(_, running)| running).collect();
            if batch.is_empty() {
                continue;
            }
            if let Err(error) = write(&self.store, &batch).await {
                tracing::debug!(error = %error, notes = batch.len(), "notes of running executions were not written");
            }
        }
    }
}

async fn write(store: &Store, batch: &[Running]) -> Result<(), StoreError> {
    // A call whose start still waits in the spool has no row yet.
    store.settled().await;
    let ids: Vec<Uuid> = batch.iter().map(|running| running.execution.uuid()).collect();
    let starts: Vec<&str> = batch.iter().map(|running| running.start.as_str()).collect();
    let sandboxes: Vec<_> = batch.iter().map(|running| clean(&running.sandbox)).collect();
    let at: Vec<_> = batch.iter().map(|running| running.at).collect();
    // Rows that are being ended right now are passed over: to wait for them in another order than their writer's could be a deadlock.
    sqlx::query!(
        "WITH due AS (
           SELECT n.* FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[]) AS n (id, start_kind, sandbox, at)
           JOIN executions x ON x.id = n.id
           WHERE x.outcome IS NULL AND x.started_at IS NULL
           FOR NO KEY UPDATE OF x SKIP LOCKED
         )
         UPDATE executions x SET state = 'running', start_kind = d.start_kind, sandbox = d.sandbox, started_at = d.at
         FROM due d WHERE x.id = d.id",
        &ids,
        &starts as &[&str],
        &sandboxes as &[std::borrow::Cow<'_, str>],
        &at,
    )
    .execute(store.relaxed())
    .await?;
    Ok(())
}
