//! stdin, stdout, stderr and signals of this process.

use std::future::poll_fn;
use std::io::{self, Read as _, Write as _};
use std::task::Poll;

use bytes::Bytes;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::frames::Kind;

/// Largest piece of stdin; a few of them fit into what may be on its way.
const PIECE: usize = 32 << 10;

/// Pieces of output that wait for whoever reads them.
const ON_THE_WAY: usize = 4;

/// Reads stdin in a thread of its own, which ends with the process: a read from a terminal cannot be taken back.
pub(super) fn read_stdin() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut piece = vec![0; PIECE];
        while let Ok(length @ 1..) = stdin.read(&mut piece) {
            let bytes = Bytes::copy_from_slice(piece.get(..length).unwrap_or_default());
            if sender.blocking_send(bytes).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Writes output in a thread of its own.
#[derive(Debug)]
pub(super) struct Writer {
    pieces: Option<mpsc::Sender<(Kind, Bytes)>>,
    /// Answered when the thread has ended: with whether all could be written.
    done: oneshot::Receiver<bool>,
    over: bool,
}

impl Writer {
    pub(super) fn start() -> Self {
        let (pieces, mut taken) = mpsc::channel::<(Kind, Bytes)>(ON_THE_WAY);
        let (tell, done) = oneshot::channel();
        std::thread::spawn(move || {
            while let Some((kind, bytes)) = taken.blocking_recv() {
                if write(kind, &bytes).is_err() {
                    let _ = tell.send(false);
                    return;
                }
            }
            let _ = tell.send(true);
        });
        Self { pieces: Some(pieces), done, over: false }
    }

    /// Hands a piece to the thread, once it has room.
    pub(super) async fn write(&self, kind: Kind, bytes: Bytes) {
        if let Some(pieces) = &self.pieces {
            // It has ended where this fails: `broken` says so.
            let _ = pieces.send((kind, bytes)).await;
        }
    }

    /// Returns when nobody takes output any more.
    pub(super) async fn broken(&mut self) {
        if !self.over && !(&mut self.done).await.unwrap_or(false) {
            self.over = true;
            return;
        }
        self.over = true;
        std::future::pending().await
    }

    /// Waits until all is written.
    pub(super) async fn finish(mut self) {
        self.pieces = None;
        if !self.over {
            let _ = self.done.await;
        }
    }
}

fn write(kind: Kind, bytes: &[u8]) -> io::Result<()> {
    if kind == Kind::Stderr {
        return io::stderr().lock().write_all(bytes);
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Signals to this process.
#[derive(Debug)]
pub(super) struct Signals(Vec<(SignalKind, Signal)>);

impl Signals {
    /// Those that a command gets as if it ran here.
    pub(super) const PASSED: [SignalKind; 6] = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
        SignalKind::quit(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
    ];
    /// Those that ask for the end.
    pub(super) const ENDING: [SignalKind; 3] = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];

    pub(super) fn listen(kinds: &[SignalKind]) -> io::Result<Self> {
        kinds.iter().map(|kind| Ok((*kind, signal(*kind)?))).collect::<io::Result<_>>().map(Self)
    }

    pub(super) async fn next(&mut self) -> SignalKind {
        poll_fn(|cx| {
            for (kind, signal) in &mut self.0 {
                if let Poll::Ready(Some(())) = signal.poll_recv(cx) {
                    return Poll::Ready(*kind);
                }
            }
            Poll::Pending
        })
        .await
    }
}
