//! Work that can start in the moment in which it is accepted: the statement that accepts it claims it as well.
//!
//! ```text
//!  reserve: a turn and a place, if nothing goes before it ──► queue row, claimed ──► commit ──► start
//!                                                                 └── fails, or nobody knows ──► given back
//! ```
//! The function's revision and settings are those that this server saw last; the statement or the caller sees to it that they still hold.

use std::collections::HashMap;
use std::fmt::Debug;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;

use super::{Claimed, Wakeup};
use crate::cause::Cause;
use crate::clock::{self, Timestamp};
use crate::id::{ExecutionId, InvocationId};
use crate::name::{FunctionName, Namespace, RevisionDigest};
use crate::store::current::Current;
use crate::store::function::Function;
use crate::store::{Store, StoreError};

/// Who starts work on this server.
pub trait Starter: Debug + Send + Sync {
    /// A turn and a place for work of a function that could start now, if nothing goes before it. Never waits.
    fn reserve(&self, function: &Function) -> Option<Box<dyn Reserved>>;

    /// How long a claim holds unless it is renewed.
    fn lease(&self) -> Duration;
}

/// A turn and a place; free again when dropped.
pub trait Reserved: Debug + Send + Sync {
    /// Starts the work that they were reserved for.
    fn start(self: Box<Self>, claimed: Claimed);
}

/// Work as it is accepted.
pub(in crate::store) struct NewWork {
    pub(in crate::store) invocation: InvocationId,
    pub(in crate::store) cause: Cause,
    pub(in crate::store) payload: Bytes,
    pub(in crate::store) content_type: Option<String>,
    pub(in crate::store) priority: i16,
    pub(in crate::store) deadline: Option<Timestamp>,
}

/// What a store knows of starting at once.
#[derive(Debug, Default)]
pub(in crate::store) struct Starting {
    starter: OnceLock<Arc<dyn Starter>>,
    /// Claims of which nobody knows whether they are on record, and since when: they were not started.
    unstarted: Mutex<Vec<(Instant, Uuid)>>,
}

impl Starting {
    fn unstarted(&self) -> MutexGuard<'_, Vec<(Instant, Uuid)>> {
        self.unstarted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The claims that are made within a transaction. Whatever of them is not started when this is dropped is given back.
#[derive(Debug)]
pub(in crate::store) struct AtOnce<'a> {
    store: &'a Store,
    starter: Option<&'a dyn Starter>,
    claims: Vec<(Claimed, Box<dyn Reserved>)>,
}

impl AtOnce<'_> {
    /// Reserves what work of a function needs to start. Returns the execution that is to be made.
    pub(in crate::store) fn reserve(&mut self, function: &Function, work: impl FnOnce() -> NewWork) -> Option<Uuid> {
        let reserved = self.starter?.reserve(function)?;
        let (execution, now) = (ExecutionId::new(), clock::now());
        let NewWork { invocation, cause, payload, content_type, priority, deadline } = work();
        let claimed = Claimed {
            invocation,
            execution,
            namespace: function.namespace.clone(),
            function: function.name.clone(),
            revision: function.revision.clone(),
            cause,
            payload: Ok(payload),
            content_type,
            attempt: 1,
            // The statement gives it one.
            fence: 0,
            created_at: now,
            due_at: now,
            priority,
            deadline,
        };
        self.claims.push((claimed, reserved));
        Some(execution.uuid())
    }

    /// What this server saw last of a function, if that is the revision it has and when it was set last.
    pub(in crate::store) fn known(
        &self,
        namespace: &Namespace,
        function: &FunctionName,
        revision: &RevisionDigest,
        set_at: Option<Timestamp>,
    ) -> Option<Arc<Current>> {
        let known = self.store.known(namespace, function)?;
        let Function { revision: known_revision, settings, .. } = &known.function;
        (known_revision == revision && settings.set_at == set_at).then_some(known)
    }

    /// Whose claims they are.
    pub(in crate::store) fn server(&self) -> &str {
        &self.store.inner.server
    }

    /// Seconds that the claims hold.
    pub(in crate::store) fn lease(&self) -> f64 {
        self.starter.map(Starter::lease).unwrap_or_default().as_secs_f64()
    }

    /// Starts what is on record: executions and their fences.
    pub(in crate::store) fn start(mut self, on_record: impl IntoIterator<Item = (Uuid, i64)>) {
        let fences: HashMap<Uuid, i64> = on_record.into_iter().collect();
        for (mut claimed, reserved) in mem::take(&mut self.claims) {
            if let Some(fence) = fences.get(&claimed.execution.uuid()) {
                claimed.fence = *fence;
                reserved.start(claimed);
            }
        }
    }
}

impl Drop for AtOnce<'_> {
    fn drop(&mut self) {
        if !self.claims.is_empty() {
            let now = Instant::now();
            let mut unstarted = self.store.inner.starting.unstarted();
            unstarted.extend(self.claims.iter().map(|(claimed, _)| (now, claimed.execution.uuid())));
        }
    }
}

impl Store {
    /// From now on work that is accepted here is started here, at once where that is possible. The first one who says so counts.
    pub fn start_with(&self, starter: Arc<dyn Starter>) {
        drop(self.inner.starting.starter.set(starter));
    }

    /// For a transaction that accepts work.
    pub(in crate::store) fn at_once(&self) -> AtOnce<'_> {
        let starter = self.inner.starting.starter.get().map(AsRef::as_ref);
        AtOnce { store: self, starter, claims: Vec::new() }
    }

    /// Lets others have the claims that were to be started at once and were not. What is in flight may still get on record: each is
    /// looked for until its claim would be over in any case.
    pub(super) async fn give_back(&self) -> Result<(), StoreError> {
        let starting = &self.inner.starting;
        let executions: Vec<Uuid> = starting.unstarted().iter().map(|(_, execution)| *execution).collect();
        if executions.is_empty() {
            return Ok(());
        }
        let given = sqlx::query!(
            "UPDATE queue SET lease_until = NULL, server = NULL, fence = NULL, execution = NULL, attempt = attempt - 1
             WHERE server = $1 AND lease_until IS NOT NULL AND execution = ANY($2)",
            self.inner.server,
            &executions,
        )
        .execute(self.hot().pool())
        .await?;
        let lease = starting.starter.get().map(|starter| starter.lease()).unwrap_or_default();
        starting.unstarted().retain(|(since, _)| since.elapsed() < lease);
        if given.rows_affected() > 0 {
            self.inner.floors.forget();
            self.tell(Wakeup::Work);
        }
        Ok(())
    }
}
