//! The connections to the database, and how long one waits for them.

use std::time::{Duration, Instant};

use sqlx::postgres::PgPool;

use super::Store;

/// One pool of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLevel {
    /// What it is for.
    pub name: &'static str,
    /// Connections that are open.
    pub open: u32,
    /// Of them, those that nobody uses.
    pub idle: u32,
}

impl Store {
    fn pools(&self) -> [(&'static str, &PgPool); 4] {
        [
            ("durable", self.pool()),
            ("hot", self.hot().pool()),
            ("steady", self.steady().pool()),
            ("relaxed", self.relaxed()),
        ]
    }

    /// How the pools stand.
    #[must_use]
    pub fn pool_levels(&self) -> [PoolLevel; 4] {
        self.pools().map(|(name, pool)| {
            let open = pool.size();
            // The two are read one after the other: what was taken in between is not idle.
            let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX).min(open);
            PoolLevel { name, open, idle }
        })
    }

    /// Takes a connection of each pool and gives it back; says how long that took, for those where it succeeded.
    pub async fn waits(&self) -> Vec<(&'static str, Duration)> {
        let mut waits = Vec::new();
        for (name, pool) in self.pools() {
            let begin = Instant::now();
            if pool.acquire().await.is_ok() {
                waits.push((name, begin.elapsed()));
            }
        }
        waits
    }
}
