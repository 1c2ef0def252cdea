//! What goes to the server: words first, then stdin, as much of it as the command will take.

use std::collections::VecDeque;

use bytes::Bytes;
use runlet_core::engine::Exec;
use tokio::sync::mpsc;

use crate::frames::{Kind, encode};

/// Frames that wait, and stdin behind them.
#[derive(Debug)]
pub(super) struct Outbound {
    frames: mpsc::Sender<Bytes>,
    waiting: VecDeque<Bytes>,
    /// What is read from here; `None` once it has ended, or where the command has no stdin.
    stdin: Option<mpsc::Receiver<Bytes>>,
    sent: u64,
    taken: u64,
}

impl Outbound {
    pub(super) fn new(frames: mpsc::Sender<Bytes>, stdin: Option<mpsc::Receiver<Bytes>>) -> Self {
        Self { frames, waiting: VecDeque::new(), stdin, sent: 0, taken: 0 }
    }

    /// Says something as soon as there is room.
    pub(super) fn say(&mut self, frame: Bytes) {
        self.waiting.push_back(frame);
    }

    /// Hands over what is waiting.
    pub(super) async fn flush(&mut self) {
        while let Some(frame) = self.waiting.pop_front() {
            // The connection is gone where this fails; that is noticed on the other side of it.
            let _ = self.frames.send(frame).await;
        }
    }

    /// Hands over what fits without waiting.
    pub(super) fn try_flush(&mut self) {
        while let Some(frame) = self.waiting.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(frame)) = self.frames.try_send(frame) {
                self.waiting.push_front(frame);
                return;
            }
        }
    }

    /// The command has taken so many bytes of its stdin.
    pub(super) fn taken(&mut self, body: &[u8]) {
        if let Ok(bytes) = <[u8; 8]>::try_from(body) {
            self.taken = u64::from_le_bytes(bytes);
        }
    }

    /// Takes one step: hands over a frame, or reads a piece of stdin. May be dropped at any moment without loss.
    pub(super) async fn work(&mut self) {
        if !self.waiting.is_empty() {
            if let Ok(room) = self.frames.reserve().await
                && let Some(frame) = self.waiting.pop_front()
            {
                room.send(frame);
                return;
            }
            return std::future::pending().await;
        }
        let window = u64::try_from(Exec::WINDOW).unwrap_or(u64::MAX);
        let Some(stdin) = self.stdin.as_mut().filter(|_| self.sent.saturating_sub(self.taken) < window / 2) else {
            return std::future::pending().await;
        };
        match stdin.recv().await {
            Some(bytes) => {
                self.sent += u64::try_from(bytes.len()).unwrap_or(0);
                self.waiting.push_back(encode(Kind::Stdin, &bytes));
            }
            None => {
                self.stdin = None;
                self.waiting.push_back(encode(Kind::StdinEnd, b""));
            }
        }
    }
}
