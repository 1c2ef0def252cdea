//! The drain: takes records from the files of the spool and writes them to the database, many at a time.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::round::Round;
use super::segment::Reading;
use super::{Shared, record};
use crate::backoff::Backoff;
use crate::metric;
use crate::store::{Store, StoreError};

/// Records are gathered for so long, unless somebody waits for them: a call that ends within it costs one insert, no update.
const GATHER: Duration = Duration::from_millis(200);

/// Who has so many bytes does not gather more.
const ENOUGH: u64 = 2 << 20;

/// Pause before a file that could not be read is tried again.
const UNREADABLE: Duration = Duration::from_secs(1);

/// The drain of a spool; to be run by whoever owns the tasks of the process.
#[derive(Debug)]
pub struct Drain {
    store: Store,
    shared: Arc<Shared>,
    /// Files of an earlier life, oldest first.
    left: VecDeque<Reading>,
    /// The file of this life that is being read.
    reading: Option<Reading>,
    /// How far it has come.
    position: u64,
}

impl Drain {
    pub(super) const fn new(store: Store, shared: Arc<Shared>, left: VecDeque<Reading>) -> Self {
        Self { store, shared, left, reading: None, position: 0 }
    }

    /// Writes until every handle is dropped and nothing waits any more. What cannot be written by then stays for the next start.
    pub async fn run(mut self) {
        let progress = Arc::clone(&self.shared.progress);
        while progress.some().await {
            if !progress.is_closed() && progress.waiting() < ENOUGH {
                progress.gather(GATHER).await;
            }
            let (records, bytes) = match self.take() {
                Ok(taken) => taken,
                Err(error) => {
                    tracing::error!(%error, "the spool cannot be read; it is tried again");
                    sleep(UNREADABLE).await;
                    continue;
                }
            };
            if !self.write(&records).await {
                tracing::warn!(records = progress.records(), "history waits in the spool for the next start");
                return;
            }
            self.position += bytes;
            progress.came_to(self.position, records.len() as u64);
            self.observe();
        }
        self.tidy();
    }

    fn observe(&self) {
        let gauge = |value: u64| f64::from(u32::try_from(value).unwrap_or(u32::MAX));
        metric::level("runlet_spool_bytes", gauge(self.shared.progress.waiting()));
        metric::level("runlet_spool_records", gauge(self.shared.progress.records()));
    }

    /// The next whole records and their size. Files that have been read to their end are removed.
    fn take(&mut self) -> io::Result<(Vec<Bytes>, u64)> {
        while let Some(reading) = self.left.front_mut() {
            let taken = reading.take(reading.size)?;
            if !taken.0.is_empty() {
                return Ok(taken);
            }
            if let Some(reading) = self.left.pop_front() {
                remove(std::fs::remove_file(&reading.path));
            }
        }
        let mut segments = self.shared.segments.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if self.reading.is_none() {
                self.reading = segments.first()?;
            }
            let Some(reading) = &mut self.reading else { return Ok((Vec::new(), 0)) };
            let Some((end, full)) = segments.state(&reading.path) else { return Ok((Vec::new(), 0)) };
            let taken = reading.take(end)?;
            if !taken.0.is_empty() || !full {
                return Ok(taken);
            }
            remove(segments.remove(&reading.path));
            self.reading = None;
        }
    }

    /// Everything is written: an empty spool is an empty directory.
    fn tidy(&mut self) {
        for reading in self.left.drain(..) {
            remove(std::fs::remove_file(&reading.path));
        }
        if let Some(reading) = self.reading.take() {
            let mut segments = self.shared.segments.lock().unwrap_or_else(PoisonError::into_inner);
            remove(segments.remove(&reading.path));
        }
    }

    /// Writes the records, whatever the database does meanwhile. `false`: it is away and the server is stopping.
    async fn write(&self, records: &[Bytes]) -> bool {
        let mut round = Round::default();
        for record in records {
            match record::read(record) {
                Ok(said) => round.add(said),
                Err(why) => tracing::error!(why, "a record of the spool cannot be read and is passed over"),
            }
        }
        let (mut backoff, mut told) = (Backoff::DATABASE, false);
        loop {
            match round.write(&self.store).await {
                Ok(()) => break,
                Err(StoreError::Down(_)) if self.shared.progress.is_closed() => return false,
                Err(StoreError::Down(error)) => {
                    if !told {
                        tracing::warn!(%error, "the database is away: history waits in the spool");
                        told = true;
                    }
                    self.observe();
                    sleep(backoff.pause()).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "a batch of the spool failed; its records are written one by one");
                    round = self.write_each(round, records).await;
                }
            }
        }
        if told {
            tracing::info!("the database is back: history catches up");
        }
        true
    }

    /// Writes what the database did not take together, record by record. What waits for the database is returned; what it refuses
    /// for good is kept in a file for somebody to look at.
    async fn write_each(&self, round: Round, records: &[Bytes]) -> Round {
        // After a long outage the partitions of those days may be missing.
        if let Some((first, last)) = round.days()
            && let Err(error) = self.store.make_days(first, last).await
        {
            tracing::warn!(%error, "could not make the partitions of the spool's days");
        }
        let (again, refused) = round.write_each(&self.store).await;
        if refused {
            let segments = self.shared.segments.lock().unwrap_or_else(PoisonError::into_inner);
            match segments.set_aside(records) {
                Ok(path) => tracing::error!("what the database refuses is kept in {}", path.display()),
                Err(error) => tracing::error!(%error, "what the database refuses could not be kept"),
            }
        }
        again
    }
}

fn remove(removed: io::Result<()>) {
    if let Err(error) = removed {
        tracing::warn!(%error, "could not remove a file of the spool; the next start reads it again, which changes nothing");
    }
}
