//! News: what this server has committed, told to those who wait for it.
//!
//! ```text
//!  commit ──► tell ──► listeners of this server, at once
//!                └───► one task ──► pg_notify, all that has come meanwhile ──► other servers
//! ```
//! Nobody who commits waits for that, and it follows the commit: Postgres lets only one transaction that notifies commit at a time, and
//! would wait for the disk while it holds that lock. News that get lost with their server are made good by the poll that every waiting
//! side does as well.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sqlx::PgExecutor;
use tokio::sync::{Notify, broadcast};
use uuid::Uuid;

use super::Wakeup;
use crate::id::InvocationId;
use crate::store::{Store, StoreError};

/// News that a listener of this server may be behind; one that is further behind is told to look for itself.
const BEHIND: usize = 1024;

/// The news of a server.
#[derive(Debug)]
pub(in crate::store) struct News {
    here: broadcast::Sender<Wakeup>,
    /// What other servers are still to be told, once each.
    waiting: Mutex<HashSet<Wakeup>>,
    some: Notify,
}

impl Default for News {
    fn default() -> Self {
        Self { here: broadcast::Sender::new(BEHIND), waiting: Mutex::default(), some: Notify::new() }
    }
}

impl News {
    fn waiting(&self) -> MutexGuard<'_, HashSet<Wakeup>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that this server tells from now on.
    pub(super) fn listen(&self) -> broadcast::Receiver<Wakeup> {
        self.here.subscribe()
    }

    fn here(&self, wakeup: Wakeup) {
        // Nobody may listen.
        let _ = self.here.send(wakeup);
    }

    fn everywhere(&self, wakeups: impl IntoIterator<Item = Wakeup>) {
        self.waiting().extend(wakeups);
        self.some.notify_one();
    }
}

impl Store {
    /// Tells that something was committed which somebody may want to look at. Here it is heard at once; elsewhere soon.
    pub(in crate::store) fn tell(&self, wakeup: Wakeup) {
        let news = &self.inner.news;
        if !self.is_alone() {
            news.everywhere([wakeup.clone()]);
        }
        news.here(wakeup);
    }

    /// Tells that invocations are terminal. Each end is told once: where there are other servers, Postgres brings it back here.
    pub(in crate::store) fn tell_done(&self, invocations: &[Uuid]) {
        let done = invocations.iter().map(|id| Wakeup::Done(InvocationId::from(*id)));
        if self.is_alone() {
            done.for_each(|done| self.inner.news.here(done));
        } else if !invocations.is_empty() {
            self.inner.news.everywhere(done);
        }
    }

    /// Tells other servers for ever, all that has come meanwhile at a time.
    pub(in crate::store) async fn tell_others(&self) {
        loop {
            self.inner.news.some.notified().await;
            self.tell_rest().await;
        }
    }

    /// Tells other servers what they have not been told yet.
    pub(in crate::store) async fn tell_rest(&self) {
        let wakeups = std::mem::take(&mut *self.inner.news.waiting());
        if let Err(error) = notify(self.relaxed(), wakeups).await {
            tracing::debug!(%error, "other servers were not told; their next poll makes it good");
        }
    }
}

/// Notifies all servers; in a transaction, when it commits.
pub(in crate::store) async fn notify(
    to: impl PgExecutor<'_>,
    wakeups: impl IntoIterator<Item = Wakeup>,
) -> Result<(), StoreError> {
    let words: Vec<String> = wakeups.into_iter().map(|wakeup| wakeup.to_string()).collect();
    if words.is_empty() {
        return Ok(());
    }
    sqlx::query_scalar!("SELECT pg_notify('runlet', word) IS NULL AS told FROM unnest($1::text[]) AS word", &words)
        .fetch_all(to)
        .await?;
    Ok(())
}
