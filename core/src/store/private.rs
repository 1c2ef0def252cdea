//! The private Postgres: a child process of the server, for those who name no database.
//!
//! It runs as the server's own unprivileged user, listens on a unix socket only, and dies with the server:
//! the parent-death signal (SIGINT: fast shutdown) is set after the child has its user id, by a parent of the same user id,
//! for the kernel checks the dying parent's right to signal.

use std::path::{Path, PathBuf};

use super::StoreError;

/// Where and as whom the private Postgres runs.
#[derive(Debug, Clone)]
pub struct PrivateOptions {
    /// Directory that holds `pg-<major>/` and `pg-<major>.sock/`; must be writable by the current user.
    pub base: PathBuf,
    /// Directory with `initdb` and `postgres`; `None`: the newest found in the usual places.
    pub bin_dir: Option<PathBuf>,
}

/// A running private Postgres. [`PrivatePostgres::stop`] ends it; so does the death of the thread that started it.
#[derive(Debug)]
pub struct PrivatePostgres {
    child: std::process::Child,
    socket_dir: PathBuf,
}

impl PrivatePostgres {
    /// Makes the cluster if need be, starts it, and returns when it answers. Blocking: to be called by the main thread before the
    /// runtime starts, for the parent-death signal follows the thread that forks.
    ///
    /// # Errors
    /// With what Postgres said, and what to do.
    pub fn start(options: &PrivateOptions) -> Result<Self, StoreError> {
        todo!()
    }

    /// How to connect to it.
    #[must_use]
    pub fn connect_options(&self) -> sqlx::postgres::PgConnectOptions {
        todo!()
    }

    /// Process id of the postmaster.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fast shutdown; returns when it has ended.
    pub fn stop(mut self) {
        todo!()
    }

    /// The directory of its socket.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }
}
