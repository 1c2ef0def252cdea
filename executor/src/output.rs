//! Output of an execution on its way to the ledger.
//!
//! Owns batching, the cap and the counting; refuses to know what the bytes mean. Nothing is started for an execution
//! that writes nothing.

pub(crate) mod mask;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use runlet_core::backoff::Backoff;
use runlet_core::engine::Stream;
use runlet_core::id::ExecutionId;
use runlet_core::name::Namespace;
use runlet_core::store::log::Chunk;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::TaskTracker;

use crate::road::Road;
use crate::session::OutputSink;

/// A batch of this size is written at once.
const BATCH: usize = 64 << 10;

/// Output waits no longer than this for more of it.
const BATCH_WAIT: Duration = Duration::from_millis(100);

/// Pieces on their way to the writer; each has at most what one read of a pipe gives.
const ON_THE_WAY: usize = 16;

/// How far behind the deadline of the execution its output is still tried to be written.
const BEHIND: Duration = Duration::from_secs(5);

/// What became of the output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LogTotals {
    /// Bytes on record.
    pub(crate) kept: u64,
    /// Bytes that were not kept.
    pub(crate) dropped: u64,
}

/// How much may still be kept.
#[derive(Debug)]
struct Cap {
    left: u64,
    totals: LogTotals,
}

impl Cap {
    const fn new(most: u64) -> Self {
        Self { left: most, totals: LogTotals { kept: 0, dropped: 0 } }
    }

    /// The part of `bytes` that is kept.
    fn take(&mut self, mut bytes: Bytes) -> Bytes {
        let length = bytes.len() as u64;
        let kept = length.min(self.left);
        self.left -= kept;
        self.totals.kept += kept;
        self.totals.dropped += length - kept;
        bytes.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
        bytes
    }
}

/// Puts the output of one execution on record. The writer that fills it is slowed down while its road is.
#[derive(Debug)]
pub(crate) struct LogSink {
    road: Road,
    namespace: Namespace,
    execution: ExecutionId,
    tasks: TaskTracker,
    give_up: Instant,
    cap: Cap,
    /// Where the next byte of stdout and of stderr goes.
    offsets: [u64; 2],
    writer: Option<(mpsc::Sender<Chunk>, JoinHandle<u64>)>,
}

impl LogSink {
    /// A sink for `execution`, which keeps `most` bytes and, while its road is closed, tries until a little after `deadline`.
    pub(crate) fn new(
        road: Road,
        tasks: TaskTracker,
        (namespace, execution): (Namespace, ExecutionId),
        most: u64,
        deadline: Instant,
    ) -> Self {
        let give_up = deadline + BEHIND;
        Self { road, namespace, execution, tasks, give_up, cap: Cap::new(most), offsets: [0; 2], writer: None }
    }

    /// Waits until everything is on record, or has been given up.
    pub(crate) async fn finish(self) -> LogTotals {
        let mut totals = self.cap.totals;
        if let Some((sender, task)) = self.writer {
            drop(sender);
            // A writer that panicked has lost an unknown part: none of it is promised then.
            let lost = task.await.unwrap_or(totals.kept).min(totals.kept);
            totals.kept -= lost;
            totals.dropped += lost;
        }
        totals
    }
}

impl OutputSink for LogSink {
    async fn write(&mut self, stream: Stream, bytes: Bytes) {
        let bytes = self.cap.take(bytes);
        if bytes.is_empty() {
            return;
        }
        let offset = &mut self.offsets[usize::from(stream == Stream::Stderr)];
        let chunk = Chunk { execution: self.execution, stream, offset: *offset, bytes };
        *offset += chunk.bytes.len() as u64;
        let (sender, _) = self.writer.get_or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(ON_THE_WAY);
            let writer = Writer { road: self.road.clone(), namespace: self.namespace.clone(), give_up: self.give_up };
            (sender, self.tasks.spawn(writer.run(receiver)))
        });
        // It only refuses after a panic of the writer: `finish` counts that.
        let _ = sender.send(chunk).await;
    }
}

/// Output that goes to the database together: a run of bytes per stream.
#[derive(Debug, Default)]
struct Batch {
    runs: [Option<(Chunk, BytesMut)>; 2],
    size: usize,
}

impl Batch {
    fn push(&mut self, chunk: Chunk) {
        self.size += chunk.bytes.len();
        match &mut self.runs[usize::from(chunk.stream == Stream::Stderr)] {
            // The bytes of a run's first chunk stay where they are until there is a second one.
            Some((first, more)) => {
                if more.is_empty() {
                    more.extend_from_slice(&first.bytes);
                }
                more.extend_from_slice(&chunk.bytes);
            }
            empty => *empty = Some((chunk, BytesMut::new())),
        }
    }

    fn take(&mut self) -> Vec<Chunk> {
        self.size = 0;
        let runs = std::mem::take(&mut self.runs).into_iter().flatten();
        runs.map(|(first, more)| if more.is_empty() { first } else { Chunk { bytes: more.freeze(), ..first } })
            .collect()
    }
}

struct Writer {
    road: Road,
    namespace: Namespace,
    give_up: Instant,
}

impl Writer {
    /// Writes until nothing more can come; returns how many bytes could not be written.
    async fn run(self, mut chunks: mpsc::Receiver<Chunk>) -> u64 {
        let mut lost = 0;
        let mut batch = Batch::default();
        while let Some(first) = chunks.recv().await {
            batch.push(first);
            let until = Instant::now() + BATCH_WAIT;
            while batch.size < BATCH
                && let Ok(Some(chunk)) = timeout_at(until, chunks.recv()).await
            {
                batch.push(chunk);
            }
            let chunks = batch.take();
            // Behind a gap nothing can be read: what is kept is a prefix.
            if lost > 0 || !self.append(&chunks).await {
                lost += chunks.iter().map(|chunk| chunk.bytes.len() as u64).sum::<u64>();
            }
        }
        lost
    }

    /// Whether the chunks are on record.
    async fn append(&self, chunks: &[Chunk]) -> bool {
        let mut backoff = Backoff::DATABASE;
        loop {
            match self.road.output(&self.namespace, chunks).await {
                Ok(()) => return true,
                Err(error) if error.may_pass() && Instant::now() < self.give_up => {
                    sleep(backoff.pause().min(self.give_up.saturating_duration_since(Instant::now()))).await;
                }
                Err(error) => {
                    let execution = chunks.first().map(|chunk| chunk.execution);
                    tracing::error!(execution.id = execution.map(tracing::field::display), %error, "output is lost");
                    return false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(execution: ExecutionId, stream: Stream, offset: u64, bytes: &'static str) -> Chunk {
        Chunk { execution, stream, offset, bytes: Bytes::from_static(bytes.as_bytes()) }
    }

    #[test]
    fn the_cap_cuts_at_the_byte_and_counts_the_rest() {
        let mut cap = Cap::new(5);
        assert_eq!(cap.take(Bytes::from_static(b"abc")), "abc");
        assert_eq!(cap.take(Bytes::from_static(b"def")), "de");
        assert_eq!(cap.take(Bytes::from_static(b"ghi")), "");
        assert_eq!(cap.totals, LogTotals { kept: 5, dropped: 4 });
        assert_eq!(Cap::new(0).take(Bytes::from_static(b"x")), "");
    }

    #[test]
    fn a_batch_joins_what_follows_and_keeps_the_streams_apart() {
        let id = ExecutionId::new();
        let mut batch = Batch::default();
        batch.push(chunk(id, Stream::Stdout, 0, "one "));
        batch.push(chunk(id, Stream::Stderr, 7, "oops"));
        batch.push(chunk(id, Stream::Stdout, 4, "two "));
        batch.push(chunk(id, Stream::Stdout, 8, "three"));
        assert_eq!(batch.size, 17);
        let written: Vec<_> = batch.take().into_iter().map(|c| (c.stream, c.offset, c.bytes)).collect();
        let expected = [(Stream::Stdout, 0, "one two three"), (Stream::Stderr, 7, "oops")];
        assert_eq!(written, expected.map(|(stream, offset, bytes)| (stream, offset, Bytes::from(bytes))));
        assert!(batch.take().is_empty() && batch.size == 0);
    }
}
