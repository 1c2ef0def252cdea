//! How far the spool has been appended to and how far it has been written: two positions, in bytes since the server started.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::timeout;

/// A reader waits no longer than this for the drain: while it catches up after an outage, history is behind.
const SETTLE: Duration = Duration::from_secs(1);

/// The two positions, and who is told when they move.
#[derive(Debug)]
pub(in crate::store) struct Progress {
    appended: AtomicU64,
    /// Records appended and not yet written.
    records: AtomicU64,
    written: watch::Sender<u64>,
    /// Something was appended, or nothing will be any more.
    some: Notify,
    /// Somebody waits for the drain.
    hurry: Notify,
    closed: AtomicBool,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            appended: AtomicU64::new(0),
            records: AtomicU64::new(0),
            written: watch::Sender::new(0),
            some: Notify::new(),
            hurry: Notify::new(),
            closed: AtomicBool::new(false),
        }
    }
}

impl Progress {
    pub(super) fn appended(&self, bytes: u64, records: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        if self.appended.fetch_add(bytes, Ordering::AcqRel) == *self.written.borrow() {
            self.some.notify_one();
        }
    }

    /// The drain has come to `position`, by so many records.
    pub(super) fn came_to(&self, position: u64, records: u64) {
        self.records.fetch_sub(records, Ordering::Relaxed);
        self.written.send_replace(position);
    }

    /// Bytes that wait.
    pub(super) fn waiting(&self) -> u64 {
        self.appended.load(Ordering::Acquire).saturating_sub(*self.written.borrow())
    }

    /// Records that wait.
    pub(super) fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.some.notify_one();
        self.hurry.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Waits until something waits to be written. `false`: nothing does, and nothing will.
    pub(super) async fn some(&self) -> bool {
        loop {
            if self.waiting() > 0 {
                return true;
            }
            if self.is_closed() {
                return false;
            }
            self.some.notified().await;
        }
    }

    /// Waits until somebody is in a hurry, `most` at the longest.
    pub(super) async fn gather(&self, most: Duration) {
        let _ = timeout(most, self.hurry.notified()).await;
    }

    /// Waits until everything up to `position` is written.
    pub(super) async fn written(&self, position: u64) {
        // The sender is part of `self`.
        let _ = self.written.subscribe().wait_for(|written| *written >= position).await;
    }

    /// Waits until what has been appended so far is written, but not for ever.
    pub(super) async fn settled(&self) {
        let target = self.appended.load(Ordering::Acquire);
        if *self.written.borrow() >= target {
            return;
        }
        self.hurry.notify_one();
        let _ = timeout(SETTLE, self.written(target)).await;
    }
}
