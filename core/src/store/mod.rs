//! The ledger: all SQL of runlet, grouped by noun.
//!
//! [`Store`] is a cheap handle on a connection pool; each submodule adds the verbs of one noun to it.

mod accept;
pub mod alias;
mod blob;
mod copy;
pub mod cron;
pub mod current;
pub mod dead_letter;
pub mod delivery;
pub mod error;
pub mod execution;
pub mod function;
mod lane;
pub mod lease;
pub mod ledger;
pub mod log;
pub mod message;
pub mod outbox;
pub mod partition;
pub mod private;
pub mod queue;
pub mod retention;
pub mod size;
mod spill;
pub mod spool;
mod text;
pub mod token;
pub mod wait;

pub use error::StoreError;
pub use spill::Spill;

use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use crate::name::Namespace;
use lane::Lanes;

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// How long a verb waits for a connection before it says that the database does not answer.
const ACQUIRE: Duration = Duration::from_secs(3);

/// How long somebody who hands something in waits for the database. One that is there and does not answer (frozen, or its disk is) must
/// not keep senders hanging: they are told to come again.
const ANSWER: Duration = Duration::from_secs(10);

/// The frequent statements are planned once for each connection, for planning over all partitions would cost more than the work itself.
/// A plan that is kept must not depend on how full a table was at that moment: whatever has a key is reached by it, always.
const BY_KEY: [(&str, &str); 6] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_material", "off"),
];

/// Lanes of [`Inner::steady`]: one for takes, one for settlements, and one more, for many ticks go by two.
const STEADY: u32 = 3;

/// Lanes of [`Inner::hot`]: one for the ends, one for the claims, one for the drain of the spool.
const HOT: u32 = 3;

/// The ledger. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// For what must be on disk when the statement returns.
    pool: PgPool,
    /// The same for ends, claims and the spool, which wait for nobody else's connection.
    hot: Lanes,
    /// The same for messages of queues.
    steady: Lanes,
    /// For what may be lost when Postgres itself crashes (never when only the server does): `synchronous_commit` is off.
    relaxed: PgPool,
    options: PgConnectOptions,
    server: String,
    spill: Option<Spill>,
    current: current::Cache,
    news: queue::news::News,
    overdue: queue::cancel::Overdue,
    floors: queue::floors::Floors,
    starting: queue::at_once::Starting,
    sweep: queue::sweep::Sweep,
    /// Rung when an end was written that somebody is to be told of.
    callbacks: tokio::sync::Notify,
    /// How far the spool of this server has been written.
    progress: Arc<spool::Progress>,
}

impl Store {
    /// Opens `connections` connections at most (and one for each [`queue::Wakeups`]), brings the schema up to date and makes the
    /// partitions of the coming days. `server` is the name under which this server's executions are on record.
    ///
    /// # Errors
    /// When the database does not answer, or is newer than this binary.
    pub async fn open(options: PgConnectOptions, connections: u32, server: &str) -> Result<Self, StoreError> {
        Self::open_with(options, connections, server, None).await
    }

    /// The same, with a place for what is too large for rows.
    ///
    /// # Errors
    /// When the database does not answer, or is newer than this binary.
    pub async fn open_with(
        options: PgConnectOptions,
        connections: u32,
        server: &str,
        spill: Option<Spill>,
    ) -> Result<Self, StoreError> {
        let options = options.application_name(&format!("runlet {server}"));
        migrate(&options).await?;
        let limited = options.clone().options([
            ("statement_timeout", "30s"),
            ("lock_timeout", "10s"),
            ("idle_in_transaction_session_timeout", "60s"),
            // To compile a plan takes longer than any of ours.
            ("jit", "off"),
        ]);
        let durable = limited.clone().options([("synchronous_commit", "on")]);
        let hot = durable.clone().options(BY_KEY);
        let relaxed = limited.options([("synchronous_commit", "off")]).options(BY_KEY);
        let share = (connections / 4).clamp(2, 8);
        let store = Self {
            inner: Arc::new(Inner {
                pool: pool(connections.saturating_sub(share + HOT + STEADY + 2).max(2), durable),
                hot: Lanes::new(pool(HOT + 1, hot.clone()), HOT as usize),
                steady: Lanes::new(pool(STEADY + 1, hot), STEADY as usize),
                relaxed: pool(share, relaxed),
                options,
                server: server.to_owned(),
                spill,
                current: current::Cache::default(),
                news: queue::news::News::default(),
                overdue: queue::cancel::Overdue::default(),
                floors: queue::floors::Floors::default(),
                starting: queue::at_once::Starting::default(),
                sweep: queue::sweep::Sweep::default(),
                callbacks: tokio::sync::Notify::new(),
                progress: Arc::default(),
            }),
        };
        store.make_partitions(crate::clock::now()).await?;
        Ok(store)
    }

    /// The connections on which a commit is on disk when it returns.
    fn pool(&self) -> &PgPool {
        &self.inner.pool
    }

    /// The connections of ends and claims: as [`Store::pool`], planned [`BY_KEY`].
    fn hot(&self) -> &Lanes {
        &self.inner.hot
    }

    /// The connections of takes and settlements of messages, and of a few ticks: as [`Store::pool`], planned [`BY_KEY`].
    fn steady(&self) -> &Lanes {
        &self.inner.steady
    }

    /// The connections on which a commit is visible at once and on disk a moment later.
    fn relaxed(&self) -> &PgPool {
        &self.inner.relaxed
    }

    /// Whether the database answers within `patience`.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self, patience: Duration) -> Result<(), StoreError> {
        let query = sqlx::query_scalar!(r#"SELECT 1 AS "one!""#).fetch_one(self.pool());
        match tokio::time::timeout(patience, query).await {
            Ok(answer) => answer.map(drop).map_err(StoreError::from),
            Err(_) => Err(StoreError::away()),
        }
    }

    /// Makes a namespace unless it is there.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn ensure_namespace(&self, namespace: &Namespace) -> Result<(), StoreError> {
        sqlx::query!("INSERT INTO namespaces (name) VALUES ($1) ON CONFLICT DO NOTHING", namespace.as_str())
            .execute(self.pool())
            .await?;
        Ok(())
    }

    /// Closes all connections, after what is under way on them has ended.
    pub async fn close(&self) {
        self.inner.relaxed.close().await;
        for lanes in [self.hot(), self.steady()] {
            lanes.close().await;
        }
        self.inner.pool.close().await;
    }
}

/// What the database said, if it did so in time. Whether it has done what was asked is not known otherwise.
async fn answered<T>(asked: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(ANSWER, asked).await.unwrap_or_else(|_| Err(StoreError::away()))
}

fn pool(connections: u32, options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE).connect_lazy_with(options)
}

/// Applies the migrations on a connection of their own: they may take longer than a statement of everyday work.
async fn migrate(options: &PgConnectOptions) -> Result<(), StoreError> {
    let pool = pool(1, options.clone());
    let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
    let done = MIGRATIONS.run(&pool).await.map_err(|error| match error {
        MigrateError::VersionMissing(found) if found > known => StoreError::Newer { found, known },
        MigrateError::Execute(error) => StoreError::from(error),
        error => StoreError::Migrate(error),
    });
    pool.close().await;
    done
}
