//! Connections that are handed from one statement to the next as they are.
//!
//! A pool asks a connection whether it lives when it gives it out, and when it takes it back. For what writes all the time these are two
//! more ways to the database and back for each statement. Here a connection whose statement succeeded waits for the next one; any other
//! goes back to its pool, which looks after it. Whoever uses a lane tries again by itself if its connection has died, and whoever finds
//! none waiting takes one of the pool, which has more than may wait.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::Connection as _;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool, Postgres};

/// A connection that has waited for longer is asked whether it lives.
const TRUSTED: Duration = Duration::from_secs(1);

/// Connections for the same few users again and again.
#[derive(Debug)]
pub(super) struct Lanes {
    pool: PgPool,
    /// Most that wait.
    most: usize,
    waiting: Mutex<Vec<(PoolConnection<Postgres>, Instant)>>,
}

/// A connection in use.
#[derive(Debug)]
pub(super) struct Lane<'a> {
    lanes: &'a Lanes,
    connection: PoolConnection<Postgres>,
}

impl Lanes {
    /// Lanes over a pool of more than `most` connections.
    pub(super) const fn new(pool: PgPool, most: usize) -> Self {
        Self { pool, most, waiting: Mutex::new(Vec::new()) }
    }

    pub(super) const fn pool(&self) -> &PgPool {
        &self.pool
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<(PoolConnection<Postgres>, Instant)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection. To be [kept](Lane::keep) when all went well.
    pub(super) async fn take(&self) -> Result<Lane<'_>, sqlx::Error> {
        let waiting = self.waiting().pop();
        if let Some((mut connection, since)) = waiting
            && (since.elapsed() < TRUSTED || connection.ping().await.is_ok())
        {
            return Ok(Lane { lanes: self, connection });
        }
        Ok(Lane { lanes: self, connection: self.pool.acquire().await? })
    }

    /// Closes all connections, after what is under way on them has ended.
    pub(super) async fn close(&self) {
        let closing = self.pool.close();
        let waiting = std::mem::take(&mut *self.waiting());
        drop(waiting);
        closing.await;
    }
}

impl Lane<'_> {
    /// All went well, and nothing is under way on it: the next one may have it.
    pub(super) fn keep(self) {
        let mut waiting = self.lanes.waiting();
        if waiting.len() < self.lanes.most && !self.lanes.pool.is_closed() {
            waiting.push((self.connection, Instant::now()));
        }
    }
}

impl Deref for Lane<'_> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Lane<'_> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}
