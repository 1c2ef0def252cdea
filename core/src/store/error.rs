//! What can go wrong with the ledger.

use crate::problem::Code;

/// What can go wrong with the ledger. Its text has what the database said: it is for the log, never for a caller.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database does not answer, or the connection broke: nothing is known to be written.
    #[error("the database does not answer: {0}")]
    Down(sqlx::Error),
    /// The statement failed for a reason of its own: a fault of runlet.
    #[error("a statement failed: {0}")]
    Statement(sqlx::Error),
    /// A row says what no row may say.
    #[error("row {id} of {table} is inconsistent: {what}")]
    Inconsistent {
        /// The table.
        table: &'static str,
        /// The row.
        id: String,
        /// What is wrong with it.
        what: String,
    },
    /// The database was written by a newer runlet.
    #[error(
        "the database has schema version {found}, newer than this binary knows ({known}); start the newer runlet, or restore a backup"
    )]
    Newer {
        /// Version found.
        found: i64,
        /// Newest version known.
        known: i64,
    },
    /// The schema could not be brought up to date.
    #[error("the schema could not be brought up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// A deploy contradicts another function's hook.
    #[error("{0}")]
    Conflict(String),
    /// What the caller asked to be so before the change is not so.
    #[error("{0}")]
    Precondition(String),
    /// The request names something that is not there.
    #[error("{0}")]
    Missing(String),
    /// The bytes are in a file of another server.
    #[error("these bytes are in a file of server `{server}`, not of this one; ask that server for them")]
    Elsewhere {
        /// Whose file it is.
        server: String,
    },
    /// The file that a row names is not there, or not whole.
    #[error(
        "these bytes were in the file {name}, which is gone or damaged ({cause}); restore the data directory's `blobs` from a backup"
    )]
    FileGone {
        /// Its name.
        name: String,
        /// What was found instead.
        cause: std::io::Error,
    },
    /// The database has been away for so long that nothing more can wait for it.
    #[error("the database does not answer, and {waiting} bytes of history wait for it already (spool_max is {most})")]
    SpoolFull {
        /// Bytes that wait.
        waiting: u64,
        /// Bytes that may wait.
        most: u64,
    },
    /// The disk does not take the history that is to wait for the database.
    #[error("the spool cannot be written: {0}")]
    Spool(#[source] std::io::Error),
    /// The private Postgres could not be started.
    #[error("the private Postgres: {0}")]
    Private(String),
}

impl StoreError {
    /// The stable code that the API answers with.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Down(_) | Self::Private(_) | Self::SpoolFull { .. } => Code::StoreDown,
            Self::Spool(_) => Code::DiskLow,
            Self::Conflict(_) => Code::Conflict,
            Self::Precondition(_) => Code::PreconditionFailed,
            Self::Missing(_) => Code::NotFound,
            Self::Elsewhere { .. } | Self::FileGone { .. } => Code::NotFound,
            Self::Statement(_) | Self::Inconsistent { .. } | Self::Newer { .. } | Self::Migrate(_) => Code::Internal,
        }
    }

    /// The database was not waited for any longer.
    #[must_use]
    pub const fn away() -> Self {
        Self::Down(sqlx::Error::PoolTimedOut)
    }

    /// Whether the same may succeed later: the database is away, or the disk is full.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::Down(_) | Self::SpoolFull { .. } | Self::Spool(_))
    }

    /// The same failure once more, for another caller that shared the transaction.
    pub(crate) fn again(&self) -> Self {
        let same = |what: &dyn std::error::Error| sqlx::Error::Io(std::io::Error::other(what.to_string()));
        match self {
            Self::Down(error) => Self::Down(same(error)),
            Self::Statement(error) => Self::Statement(same(error)),
            other => Self::Statement(same(other)),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        match &error {
            E::Io(_) | E::Tls(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed | E::Protocol(_) => {
                Self::Down(error)
            }
            // 08 connection, 40 rolled back (deadlock), 53 out of resources, 57 operator intervention (shutdown, cannot connect now),
            // 58 system error: to try again later is right for all of them.
            E::Database(db)
                if db.code().is_some_and(|code| ["08", "40", "53", "57", "58"].iter().any(|c| code.starts_with(c))) =>
            {
                Self::Down(error)
            }
            _ => Self::Statement(error),
        }
    }
}
