//! The spool: where the history of synchronous calls waits for the database.
//!
//! ```text
//! call ► start: write(2) ► code runs ► end: write(2) ► answer          files of <data_dir>/spool
//!                └──────────────────────┴──► drain ► Postgres, many at a time, a moment later
//! ```
//! Records are appended with write(2) and no fsync: they survive the death of the server and an outage of Postgres, not
//! a power cut. The drain reads the same files that a restart replays, so there is one way from a record to its row, and
//! writing a record twice changes nothing. While more waits than is allowed, new calls are refused rather than forgotten.
//!
//! A reader of this server first waits until what was appended before is in the database ([`Store::settled`]).

mod drain;
mod progress;
mod record;
mod round;
mod segment;

pub use drain::Drain;
pub(super) use progress::Progress;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::ledger::{CallStart, Finish};
use super::log::Chunk;
use super::{Store, StoreError};
use crate::name::Namespace;
use record::Record;
use segment::Segments;

/// The handle that records are appended with. Cheap to clone; the drain ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Spool {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
}

/// What the handle and the drain share.
#[derive(Debug)]
struct Shared {
    segments: Mutex<Segments>,
    progress: Arc<Progress>,
    /// Most bytes that may wait.
    most: u64,
    /// What an earlier life of the server left: position behind its last record.
    left: u64,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.progress.close();
    }
}

impl Store {
    /// Opens the spool in `dir`, which must exist; what an earlier life left there is written first. At most `most` bytes wait.
    /// Somebody must run the [`Drain`].
    ///
    /// # Errors
    /// When the files cannot be read or made.
    pub fn spool(&self, dir: &Path, most: u64) -> Result<(Spool, Drain), StoreError> {
        let (segments, left) = Segments::open(dir).map_err(StoreError::Spool)?;
        let progress = Arc::clone(&self.inner.progress);
        progress.appended(left.bytes, left.records);
        let shared = Arc::new(Shared { segments: Mutex::new(segments), progress, most, left: left.bytes });
        let drain = Drain::new(self.clone(), Arc::clone(&shared), left.segments);
        Ok((Spool { handle: Arc::new(Handle { shared }) }, drain))
    }

    /// Waits until what this server has appended to its spool so far is in the database, or it is clear that this takes longer.
    pub(super) async fn settled(&self) {
        self.inner.progress.settled().await;
    }
}

impl Spool {
    /// Puts the start of a synchronous call on record.
    ///
    /// # Errors
    /// [`StoreError::SpoolFull`] when the database has been away for too long; [`StoreError::Spool`] when the disk refuses.
    pub fn start(&self, start: &CallStart) -> Result<(), StoreError> {
        self.has_room()?;
        self.append(&record::start(start))
    }

    /// Puts output of a synchronous call on record.
    ///
    /// # Errors
    /// As for [`Spool::start`]; the caller tries again.
    pub fn output(&self, namespace: &Namespace, chunks: &[Chunk]) -> Result<(), StoreError> {
        self.has_room()?;
        chunks.iter().try_for_each(|chunk| self.append(&record::output(namespace, chunk)))
    }

    /// Puts the end of a synchronous call on record. The bound does not hold here: what has begun is not forgotten.
    ///
    /// # Errors
    /// [`StoreError::Spool`] when the disk refuses.
    pub fn end(&self, finish: &Finish) -> Result<(), StoreError> {
        self.append(&record::end(finish))
    }

    /// Waits until what an earlier life of the server left is in the database.
    pub async fn replayed(&self) {
        self.handle.shared.progress.written(self.handle.shared.left).await;
    }

    fn has_room(&self) -> Result<(), StoreError> {
        let Shared { progress, most, .. } = &*self.handle.shared;
        let waiting = progress.waiting();
        if waiting > *most { Err(StoreError::SpoolFull { waiting, most: *most }) } else { Ok(()) }
    }

    fn append(&self, record: &Record) -> Result<(), StoreError> {
        let shared = &self.handle.shared;
        let mut segments = shared.segments.lock().unwrap_or_else(PoisonError::into_inner);
        segments.append(record.bytes()).map_err(StoreError::Spool)?;
        // Under the lock: positions and files must agree.
        shared.progress.appended(record.bytes().len() as u64, 1);
        Ok(())
    }
}
