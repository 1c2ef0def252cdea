//! Wake-ups: what Postgres tells those who wait for work or for an end.
//!
//! Rare notifications are part of the transaction that they tell of. The frequent ones (work was accepted, work has ended) follow their
//! commit: Postgres lets only one transaction that notifies commit at a time, and would wait for the disk while it holds that lock.
//! One that gets lost with its server is made good by the poll that every waiting side does as well.

use std::str::FromStr as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::{Mutex, Notify};
use uuid::Uuid;

use super::CHANNEL;
use crate::backoff::Backoff;
use crate::id::InvocationId;
use crate::name::Namespace;
use crate::store::{Store, StoreError};

/// Payload of [`Wakeup::Schedules`].
pub(in crate::store) const SCHEDULES: &str = "schedules";

/// Wakes the dispatcher: a dedicated LISTEN connection that reconnects by itself.
#[derive(Debug)]
pub struct Wakeups {
    store: Store,
    listener: Option<PgListener>,
}

/// What a wake-up says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wakeup {
    /// Something may be ready to be claimed.
    Work,
    /// Somebody cancelled this invocation, which runs.
    Cancel(InvocationId),
    /// This invocation is terminal.
    Done(InvocationId),
    /// Schedules and queue triggers have been added, changed, paused, resumed or removed.
    Schedules,
    /// There is something to take from this queue.
    Messages(Namespace, String),
}

impl Wakeup {
    /// Reads the payload of a notification. What is not understood (a newer server's word) is taken as `Work`: to look is always safe.
    fn parse(payload: &str) -> Self {
        let id = |text: &str| Uuid::from_str(text).ok().map(InvocationId::from);
        match payload.split_once(':') {
            Some(("cancel", text)) => id(text).map_or(Self::Work, Self::Cancel),
            Some(("messages", text)) => text
                .split_once('/')
                .and_then(|(namespace, queue)| Some(Self::Messages(Namespace::new(namespace).ok()?, queue.to_owned())))
                .unwrap_or(Self::Work),
            Some(("done", text)) => id(text).map_or(Self::Work, Self::Done),
            _ if payload == SCHEDULES => Self::Schedules,
            _ => Self::Work,
        }
    }
}

impl Wakeups {
    /// The next wake-up. Never fails: while the database is away it waits (and says `Work` once it is back).
    /// Cancel-safe but for a reconnect, which begins anew.
    pub async fn next(&mut self) -> Wakeup {
        if let Some(listener) = &mut self.listener {
            match listener.try_recv().await {
                Ok(Some(notification)) => return Wakeup::parse(notification.payload()),
                Ok(None) => tracing::warn!("the LISTEN connection was cut"),
                Err(error) => tracing::warn!(error = %error, "the LISTEN connection failed"),
            }
            self.listener = None;
        }
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        loop {
            match listen(&self.store).await {
                Ok(listener) => {
                    self.listener = Some(listener);
                    // Whatever was notified meanwhile is lost: the caller looks for itself.
                    return Wakeup::Work;
                }
                Err(error) => tracing::debug!(error = %error, "cannot LISTEN yet"),
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }
}

/// Tells servers that there is work: one notification under way, and at most one that waits behind it for all who came meanwhile.
#[derive(Debug, Default)]
pub(in crate::store) struct Nudge {
    waiting: AtomicBool,
    turn: Mutex<()>,
}

/// Takes the mark off, even from a caller that went away while it waited.
struct Unmark<'a>(&'a AtomicBool);

impl Drop for Unmark<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// Ends that servers are still to be told of.
#[derive(Debug, Default)]
pub(in crate::store) struct Ends {
    waiting: std::sync::Mutex<Vec<Uuid>>,
    some: Notify,
}

impl Ends {
    fn lock(&self) -> MutexGuard<'_, Vec<Uuid>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Tells all servers that work was committed.
    pub(in crate::store) async fn nudge(&self) {
        let Nudge { waiting, turn } = &self.inner.nudge;
        if waiting.swap(true, Ordering::SeqCst) {
            return;
        }
        let mark = Unmark(waiting);
        let _turn = turn.lock().await;
        // Off before the statement: who commits from here on may be too late for it, and sends another.
        drop(mark);
        self.told(
            sqlx::query_scalar!("SELECT pg_notify('runlet', 'work') IS NULL AS told").fetch_all(self.relaxed()).await,
        );
    }

    /// Has those who wait for them told that invocations are terminal: soon, whoever ends work does not wait for that.
    pub(in crate::store) fn tell_done(&self, invocations: &[Uuid]) {
        if !invocations.is_empty() {
            self.inner.ends.lock().extend_from_slice(invocations);
            self.inner.ends.some.notify_one();
        }
    }

    /// Tells of ends for ever, all that have come meanwhile at a time.
    pub(in crate::store) async fn tell_ends(&self) {
        loop {
            self.inner.ends.some.notified().await;
            self.tell_rest().await;
        }
    }

    /// Tells of the ends that nobody has been told of yet.
    pub(in crate::store) async fn tell_rest(&self) {
        let ids = std::mem::take(&mut *self.inner.ends.lock());
        if ids.is_empty() {
            return;
        }
        let told = sqlx::query_scalar!(
            "SELECT pg_notify('runlet', 'done:' || id) IS NULL AS told FROM unnest($1::uuid[]) AS id",
            &ids,
        );
        self.told(told.fetch_all(self.relaxed()).await);
    }

    fn told<T>(&self, result: Result<T, sqlx::Error>) {
        if let Err(error) = result {
            tracing::debug!(error = %error, server = self.inner.server, "a notification was not sent; the next poll makes it good");
        }
    }

    /// Opens the LISTEN connection. Whoever asks the database afterwards misses nothing.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn wakeups(&self) -> Result<Wakeups, StoreError> {
        let listener = listen(self).await?;
        Ok(Wakeups { store: self.clone(), listener: Some(listener) })
    }
}

/// A listener on a connection of its own, so that it takes none of the pool's.
async fn listen(store: &Store) -> Result<PgListener, StoreError> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .max_lifetime(None)
        .idle_timeout(None)
        .acquire_timeout(Duration::from_secs(3))
        .connect_lazy_with(store.inner.options.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    // Without this the listener would reconnect behind our back, and nobody would be told that notifications were lost.
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_read() {
        let id = InvocationId::new();
        assert_eq!(Wakeup::parse(&format!("done:{}", id.uuid())), Wakeup::Done(id));
        assert_eq!(Wakeup::parse(&format!("cancel:{}", id.uuid())), Wakeup::Cancel(id));
        assert_eq!(Wakeup::parse(SCHEDULES), Wakeup::Schedules);
        let messages = Wakeup::Messages(Namespace::default_namespace(), "b.f.q/x".to_owned());
        assert_eq!(Wakeup::parse("messages:default/b.f.q/x"), messages);
        for text in ["work", "", "done:", "done:x", "later:1"] {
            assert_eq!(Wakeup::parse(text), Wakeup::Work);
        }
    }
}
