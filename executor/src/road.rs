//! The road that the history of an execution takes to the database.
//!
//! Queued work and functions with `durability = "committed"` write to the database itself and wait for it. Other calls go through
//! the spool: the start is in a file before the code runs, the end before the answer, and the database has both a moment later.

use std::time::Duration;

use runlet_core::backoff::Backoff;
use runlet_core::metric::{self, Stage};
use runlet_core::name::Namespace;
use runlet_core::store::ledger::{Finish, Ledger};
use runlet_core::store::log::Chunk;
use runlet_core::store::spool::Spool;
use runlet_core::store::{Store, StoreError};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Where history is written to.
#[derive(Debug, Clone)]
pub(crate) enum Road {
    /// The database, waited for.
    Committed(Store, Ledger),
    /// The spool; the ledger keeps the notes of what runs.
    Spooled(Spool, Ledger),
}

impl Road {
    /// Puts output on record.
    ///
    /// # Errors
    /// When it is not on record.
    pub(crate) async fn output(&self, namespace: &Namespace, chunks: &[Chunk]) -> Result<(), StoreError> {
        match self {
            Self::Committed(store, _) => store.append_logs(namespace, chunks).await,
            Self::Spooled(spool, _) => spool.output(namespace, chunks),
        }
    }

    /// Puts an end on record, trying again while the database is away or the disk is full. Returns whether it was written:
    /// `false` if the execution had ended already, or its claim belongs to somebody else.
    ///
    /// # Errors
    /// The last error once `patience` is over or `give_up` is cancelled; at once an error that another try would not mend.
    pub(crate) async fn finish(
        &self,
        finish: &Finish,
        patience: Option<Duration>,
        give_up: &CancellationToken,
    ) -> Result<bool, StoreError> {
        let _timed = metric::timed(Stage::Record);
        let until = patience.map(|patience| Instant::now() + patience);
        let mut backoff = Backoff::DATABASE;
        loop {
            let tried = match self {
                Self::Committed(_, ledger) => ledger.finish(finish.clone()).await,
                Self::Spooled(spool, ledger) => {
                    ledger.forget(finish.execution);
                    spool.end(finish).map(|()| true)
                }
            };
            let error = match tried {
                Ok(written) => return Ok(written),
                Err(error) => error,
            };
            let over = until.is_some_and(|until| Instant::now() >= until) || give_up.is_cancelled();
            if over || !error.may_pass() {
                return Err(error);
            }
            tracing::debug!(execution.id = %finish.execution, %error, "the end of the execution waits");
            tokio::select! {
                () = sleep(backoff.pause()) => {}
                () = give_up.cancelled() => {}
            }
        }
    }
}
