//! A socket to somebody who may be slow: what cannot be sent at once waits in a bounded outbox.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::wire::{Received, Seqpacket};

/// Messages that may wait; a peer that is further behind is as good as gone.
const OUTBOX: usize = 4096;

/// The other end of a socket.
#[derive(Debug)]
pub(super) struct Peer<T> {
    socket: Seqpacket,
    outbox: VecDeque<(T, Vec<OwnedFd>)>,
}

impl<T: Serialize> Peer<T> {
    pub(super) fn new(socket: Seqpacket) -> io::Result<Self> {
        socket.set_nonblocking()?;
        Ok(Self { socket, outbox: VecDeque::new() })
    }

    /// Sends, or keeps for [`Peer::flush`]. An error means that the peer is gone.
    pub(super) fn send(&mut self, message: T, fds: Vec<OwnedFd>) -> io::Result<()> {
        if self.outbox.len() >= OUTBOX {
            return Err(io::Error::other("the peer does not read"));
        }
        self.outbox.push_back((message, fds));
        self.flush()
    }

    /// Sends what waits, as far as the peer takes it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while let Some((message, fds)) = self.outbox.front() {
            let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(OwnedFd::as_fd).collect();
            match self.socket.send(message, &borrowed) {
                Ok(()) => drop(self.outbox.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether nothing waits to be sent.
    pub(super) fn is_flushed(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Receives; `Ok(None)` when nothing is there now; an error (also for the peer's end) means that the peer is gone.
    pub(super) fn receive<R: DeserializeOwned>(&self) -> io::Result<Option<Received<R>>> {
        match self.socket.receive() {
            Ok(Some(received)) => Ok(Some(received)),
            Ok(None) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What to wait for.
    pub(super) fn poll_fd(&self) -> PollFd<'_> {
        let flags = if self.is_flushed() { PollFlags::POLLIN } else { PollFlags::POLLIN | PollFlags::POLLOUT };
        PollFd::new(self.socket.as_fd(), flags)
    }
}
