//! The ledger: all SQL of runlet, grouped by noun.
//!
//! [`Store`] is a cheap handle on a connection pool; each submodule adds the verbs of one noun to it.

pub mod delivery;
pub mod error;
pub mod execution;
pub mod function;
pub mod ledger;
pub mod log;
pub mod partition;
pub mod private;
pub mod queue;
pub mod token;

pub use error::StoreError;

use sqlx::postgres::{PgConnectOptions, PgPool};

/// The ledger. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
}

impl Store {
    /// Opens `connections` connections at most, brings the schema up to date and makes the partitions of the coming days.
    ///
    /// # Errors
    /// When the database does not answer, or is newer than this binary.
    pub async fn open(options: PgConnectOptions, connections: u32) -> Result<Self, StoreError> {
        todo!()
    }

    /// The pool, for those who need a connection of their own (LISTEN).
    pub(crate) const fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Whether the database answers within `patience`.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self, patience: std::time::Duration) -> Result<(), StoreError> {
        todo!()
    }
}
