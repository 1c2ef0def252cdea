//! Wake-ups: what those are told who wait for work or for an end, by this server itself and by Postgres.
//!
//! Rare notifications are part of the transaction that they tell of. The frequent ones are [`News`](super::news::News).

use std::fmt;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::broadcast;
use uuid::Uuid;

use super::CHANNEL;
use crate::backoff::Backoff;
use crate::id::InvocationId;
use crate::name::Namespace;
use crate::store::{Store, StoreError};

/// Payload of [`Wakeup::Schedules`].
const SCHEDULES: &str = "schedules";

/// Wakes the dispatcher: a dedicated LISTEN connection that reconnects by itself.
#[derive(Debug)]
pub struct Wakeups {
    store: Store,
    /// What this server tells.
    here: broadcast::Receiver<Wakeup>,
    /// What Postgres does.
    listener: Option<PgListener>,
}

/// What a wake-up says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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

/// As it goes through Postgres.
impl fmt::Display for Wakeup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Work => f.write_str("work"),
            Self::Cancel(id) => write!(f, "cancel:{}", id.uuid()),
            Self::Done(id) => write!(f, "done:{}", id.uuid()),
            Self::Schedules => f.write_str(SCHEDULES),
            Self::Messages(namespace, queue) => write!(f, "messages:{namespace}/{queue}"),
        }
    }
}

impl Wakeups {
    /// The next wake-up. Never fails: while the database is away it waits (and says `Work` once it is back).
    /// Cancel-safe but for a reconnect, which begins anew.
    pub async fn next(&mut self) -> Wakeup {
        if let Some(listener) = &mut self.listener {
            let heard = tokio::select! {
                // One who is too far behind looks for himself.
                told = self.here.recv() => return told.unwrap_or(Wakeup::Work),
                heard = listener.try_recv() => heard,
            };
            match heard {
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

impl Store {
    /// Opens the LISTEN connection. Whoever asks the database afterwards misses nothing.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn wakeups(&self) -> Result<Wakeups, StoreError> {
        let here = self.inner.news.listen();
        let listener = listen(self).await?;
        Ok(Wakeups { store: self.clone(), here, listener: Some(listener) })
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
        let messages = Wakeup::Messages(Namespace::default_namespace(), "b.f.q/x".to_owned());
        for wakeup in [Wakeup::Work, Wakeup::Done(id), Wakeup::Cancel(id), Wakeup::Schedules, messages] {
            assert_eq!(Wakeup::parse(&wakeup.to_string()), wakeup);
        }
        assert_eq!(
            Wakeup::parse(&format!("done:{}", id.uuid())),
            Wakeup::Done(id),
            "as servers before this one say it"
        );
        for text in ["work", "", "done:", "done:x", "later:1"] {
            assert_eq!(Wakeup::parse(text), Wakeup::Work);
        }
    }
}
