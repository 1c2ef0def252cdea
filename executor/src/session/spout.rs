//! A result that comes in pieces, on its way to one who reads it at his own pace.
//!
//! Nothing here waits unless it is asked to: what cannot go on is kept, and whoever fills the spout looks whether it is full.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use runlet_core::engine::ResultPiece;
use tokio::sync::mpsc;

/// Once so many bytes wait for the reader, no more are asked for.
const FULL: usize = 256 * 1024;

/// Makes the first piece, which names the content type.
type Begins = Box<dyn FnOnce(&'static str) -> ResultPiece + Send + Sync>;

/// The way to the reader.
pub struct Spout {
    /// Gone when there is no reader (any more).
    reader: Option<mpsc::Sender<ResultPiece>>,
    begins: Option<Begins>,
    waiting: VecDeque<ResultPiece>,
    bytes: usize,
}

impl fmt::Debug for Spout {
    /// Shows no result.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spout")
            .field("waiting", &self.waiting.len())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Spout {
    /// A spout to `reader`; `begins` makes the first piece.
    #[must_use]
    pub fn new(reader: mpsc::Sender<ResultPiece>, begins: Begins) -> Self {
        Self { reader: Some(reader), begins: Some(begins), waiting: VecDeque::new(), bytes: 0 }
    }

    /// A spout that nobody reads.
    #[must_use]
    pub fn closed() -> Self {
        Self { reader: None, begins: None, waiting: VecDeque::new(), bytes: 0 }
    }

    /// A result in pieces begins.
    pub(super) fn begin(&mut self, content_type: &'static str) {
        if let Some(begins) = self.begins.take() {
            self.push(begins(content_type));
        }
    }

    /// The next piece.
    pub(super) fn give(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.push(ResultPiece::Bytes(bytes));
        }
    }

    fn push(&mut self, piece: ResultPiece) {
        if self.reader.is_none() {
            return;
        }
        self.bytes += size(&piece);
        self.waiting.push_back(piece);
        self.pour();
    }

    /// Hands on what the reader takes now.
    fn pour(&mut self) {
        while let (Some(reader), Some(piece)) = (&self.reader, self.waiting.pop_front()) {
            let size = size(&piece);
            match reader.try_send(piece) {
                Ok(()) => self.bytes -= size,
                Err(mpsc::error::TrySendError::Full(piece)) => {
                    self.waiting.push_front(piece);
                    return;
                }
                Err(mpsc::error::TrySendError::Closed(_)) => self.close(),
            }
        }
    }

    /// The reader has gone: what comes from now on goes nowhere.
    fn close(&mut self) {
        *self = Self::closed();
    }

    /// Whether so much waits that the code has to wait, too.
    pub(super) const fn is_full(&self) -> bool {
        self.bytes >= FULL
    }

    /// Whether anything waits.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Waits until the reader takes something, and hands it on. May be dropped at any point.
    pub(super) async fn flow(&mut self) {
        let Some(reader) = self.reader.clone() else { return };
        match reader.reserve().await {
            Ok(room) => {
                if let Some(piece) = self.waiting.pop_front() {
                    self.bytes -= size(&piece);
                    room.send(piece);
                }
            }
            Err(_) => self.close(),
        }
    }

    /// Waits until the reader has taken all of it or has gone. One that has begun is told that it was all, if it is `whole`.
    pub(crate) async fn finish(mut self, whole: bool) {
        if whole && self.begins.is_none() {
            self.push(ResultPiece::Ends);
        }
        while self.has_waiting() {
            self.flow().await;
        }
    }
}

const fn size(piece: &ResultPiece) -> usize {
    match piece {
        ResultPiece::Begins { .. } | ResultPiece::Ends => 0,
        ResultPiece::Bytes(bytes) => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begins(content_type: &'static str) -> ResultPiece {
        ResultPiece::Begins {
            invocation: runlet_core::id::InvocationId::new(),
            execution: runlet_core::id::ExecutionId::new(),
            content_type,
        }
    }

    #[tokio::test]
    async fn all_pieces_arrive_in_order_however_slowly_they_are_taken() {
        let (sender, mut receiver) = mpsc::channel(1);
        let mut spout = Spout::new(sender, Box::new(begins));
        spout.begin("text/plain");
        for n in 0..100_u8 {
            spout.give(Bytes::copy_from_slice(&[n; 4096]));
        }
        assert!(spout.is_full());
        let reader = async {
            let (mut seen, mut whole) = (Vec::new(), false);
            while let Some(piece) = receiver.recv().await {
                tokio::task::yield_now().await;
                match piece {
                    ResultPiece::Begins { .. } => {}
                    ResultPiece::Bytes(bytes) => seen.push(bytes[0]),
                    ResultPiece::Ends => whole = true,
                }
            }
            (seen, whole)
        };
        let ((seen, whole), ()) = tokio::join!(reader, spout.finish(true));
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        assert!(whole);
    }

    #[tokio::test]
    async fn a_reader_that_has_gone_holds_nothing_up() {
        let (sender, receiver) = mpsc::channel(1);
        let mut spout = Spout::new(sender, Box::new(begins));
        spout.begin("text/plain");
        spout.give(Bytes::from(vec![0; FULL]));
        assert!(spout.is_full());
        drop(receiver);
        spout.flow().await;
        spout.give(Bytes::from(vec![0; FULL]));
        assert!(!spout.is_full() && !spout.has_waiting());
        spout.finish(true).await;
    }
}
