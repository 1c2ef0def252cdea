//! Group commit: a writer takes what waits, writes it as one statement, and answers each caller. No timer: a lone entry waits for no longer
//! than it takes to see that it is alone.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::store::StoreError;

/// Most entries of a batch.
const ENTRIES: usize = 256;

/// Bodies of a batch, bytes: an array of a statement must stay far below what Postgres takes (1 GiB).
const BYTES: usize = 32 << 20;

/// Nobody has handed anything in for so long: a batch is whole. Far less than a transaction takes, and than a timer can tell.
const QUIET: Duration = Duration::from_micros(30);

/// Something to write, and who waits for it.
#[derive(Debug)]
pub(super) struct Entry<T, R> {
    what: T,
    answer: oneshot::Sender<Result<R, StoreError>>,
}

/// How a batch is written.
pub(super) trait Write: Send + 'static {
    /// What is written.
    type What: Send;
    /// What each caller is told.
    type Answer: Send;

    /// Bytes of bodies in an entry.
    fn weight(what: &Self::What) -> usize;

    /// Writes all or nothing; the answers are in the order of the entries.
    fn write(&self, batch: &[&Self::What]) -> impl Future<Output = Result<Vec<Self::Answer>, StoreError>> + Send;
}

/// Hands an entry to its writer and waits until it is written.
pub(super) async fn submit<T, R>(writer: &mpsc::Sender<Entry<T, R>>, what: T) -> Result<R, StoreError> {
    let gone = || StoreError::Down(sqlx::Error::WorkerCrashed);
    let (answer, written) = oneshot::channel();
    writer.send(Entry { what, answer }).await.map_err(|_| gone())?;
    written.await.unwrap_or_else(|_| Err(gone()))
}

/// A writer and what waits for it.
#[derive(Debug)]
pub(super) struct Writer<W: Write> {
    write: W,
    waiting: mpsc::Receiver<Entry<W::What, W::Answer>>,
}

impl<W: Write> Writer<W> {
    pub(super) const fn new(write: W, waiting: mpsc::Receiver<Entry<W::What, W::Answer>>) -> Self {
        Self { write, waiting }
    }

    /// Writes until every sender is dropped and nothing waits any more.
    pub(super) async fn run(mut self) {
        while let Some(first) = self.waiting.recv().await {
            self.gather().await;
            let mut bytes = W::weight(&first.what);
            let mut batch = vec![first];
            while batch.len() < ENTRIES && bytes < BYTES {
                let Ok(next) = self.waiting.try_recv() else { break };
                bytes += W::weight(&next.what);
                batch.push(next);
            }
            self.commit(batch).await;
        }
    }

    /// Lets whoever is about to hand something in do so, to share the transaction: until nobody has for a moment.
    async fn gather(&self) {
        let (mut waiting, mut since) = (0, Instant::now());
        while waiting < ENTRIES && since.elapsed() < QUIET {
            tokio::task::yield_now().await;
            if self.waiting.len() > waiting {
                (waiting, since) = (self.waiting.len(), Instant::now());
            }
        }
    }

    async fn commit(&self, batch: Vec<Entry<W::What, W::Answer>>) {
        let whats: Vec<&W::What> = batch.iter().map(|entry| &entry.what).collect();
        match self.write.write(&whats).await {
            Ok(answers) => {
                for (entry, answer) in batch.into_iter().zip(answers) {
                    tell(entry.answer, Ok(answer));
                }
            }
            // One bad entry must not take the others with it.
            Err(StoreError::Statement(error)) if batch.len() > 1 => {
                tracing::warn!(error = %error, entries = batch.len(), "a batch of the ledger failed; its entries are written one by one");
                for entry in batch {
                    let answer = self.write.write(&[&entry.what]).await.map(|mut answers| answers.pop());
                    let none = || Err(StoreError::Down(sqlx::Error::WorkerCrashed));
                    tell(entry.answer, answer.and_then(|answer| answer.map_or_else(none, Ok)));
                }
            }
            Err(error) => {
                for entry in batch {
                    tell(entry.answer, Err(error.again()));
                }
            }
        }
    }
}

/// Answers a caller, unless it has gone away: the entry is written all the same.
fn tell<R>(answer: oneshot::Sender<Result<R, StoreError>>, result: Result<R, StoreError>) {
    if answer.send(result).is_err() {
        tracing::debug!("a caller of the ledger went away before its answer");
    }
}
