//! What work leaves behind in the queue when it has gone: rows that are dead, which every claim walks over until they are swept out.
//! Postgres sweeps by itself once a minute; a busy server leaves too much within one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::store::Store;

/// Pieces of work that may go before it is swept. Each leaves two rows or three.
const PIECES: usize = 10_000;

/// Least time between two sweeps, in times of what the last one took: where others keep it from clearing anything up, it costs a twentieth
/// of a processor at most.
const REST: u32 = 20;

/// Pieces that have gone.
#[derive(Debug, Default)]
pub(in crate::store) struct Sweep {
    gone: AtomicUsize,
    due: Notify,
}

impl Sweep {
    /// So many more have gone.
    pub(in crate::store) fn gone(&self, pieces: usize) {
        if self.gone.fetch_add(pieces, Ordering::Relaxed) + pieces >= PIECES {
            self.due.notify_one();
        }
    }
}

impl Store {
    /// Sweeps the queue whenever much has gone. Best effort: what fails is Postgres' to do. Never ends.
    pub(in crate::store) async fn sweep_queue(&self) {
        let sweep = &self.inner.sweep;
        loop {
            sweep.due.notified().await;
            sweep.gone.store(0, Ordering::Relaxed);
            let begin = Instant::now();
            // Others may sweep it already; and to cut off its empty end would keep everybody out meanwhile.
            let swept = sqlx::query!("VACUUM (SKIP_LOCKED, TRUNCATE false) queue").execute(self.pool()).await;
            if let Err(error) = swept {
                tracing::debug!(%error, "the queue was not swept");
            }
            sleep((begin.elapsed() * REST).max(Duration::from_secs(1))).await;
        }
    }
}
