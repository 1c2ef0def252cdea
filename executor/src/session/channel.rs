//! The host's end of fd 3: frames in, frames out, nothing waits here but for the socket.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use runlet_runtimes::frame::{Decoder, Frame, FrameError, HEADER, Kind, header};
use serde::Serialize;

use super::scratch;
use crate::host::socket::Socket;

/// Bytes of a body in one frame of ours.
const PIECE: usize = 256 * 1024;

/// Buffers that have grown above this are given back between calls.
const KEEP: usize = 64 * 1024;

/// Reads after the process has ended: more than the buffer of a socket holds. A child may have fd 3 and go on writing.
const LAST_READS: usize = 64;

/// The socket with what is on its way in both directions.
#[derive(Debug)]
pub(super) struct Channel {
    socket: Socket,
    decoder: Decoder,
    unsent: BytesMut,
    /// What is left of the body of a call, and which call that is.
    body: Bytes,
    call: u64,
    open: bool,
    /// Whether the other side went without having read all that was said.
    unread: bool,
}

impl Channel {
    pub(super) fn new(socket: Socket) -> Self {
        let (decoder, unsent) = (Decoder::new(), BytesMut::new());
        Self { socket, decoder, unsent, body: Bytes::new(), call: 0, open: true, unread: false }
    }

    /// Whether the other side may still say something.
    pub(super) const fn is_open(&self) -> bool {
        self.open
    }

    /// Whether the other side is known to have gone without having read all that was said: a socket whose peer closes it with
    /// bytes unread is reset, and one that cannot be written to has taken nothing.
    pub(super) const fn went_unread(&self) -> bool {
        self.unread
    }

    /// Queues a frame whose body is `value` as JSON.
    ///
    /// # Errors
    /// [`FrameError::Oversize`]; nothing is queued then.
    pub(super) fn say(&mut self, kind: Kind, call: u64, end: bool, value: &impl Serialize) -> Result<(), FrameError> {
        let start = self.unsent.len();
        self.unsent.put_bytes(0, HEADER);
        serde_json::to_writer((&mut self.unsent).writer(), value).expect("our own values have string keys only");
        let length = self.unsent.len() - start - HEADER;
        match header(kind, end, call, length) {
            Ok(bytes) => self.unsent[start..start + HEADER].copy_from_slice(&bytes),
            Err(error) => {
                self.unsent.truncate(start);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Queues `body` as the data frames of `call`; there is at least one.
    pub(super) fn say_body(&mut self, call: u64, body: Bytes) {
        (self.call, self.body) = (call, body);
        self.take_piece();
    }

    /// Whether something queued has not been written.
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty() || !self.body.is_empty()
    }

    /// Waits until the socket takes bytes.
    pub(super) async fn writable(&self) {
        self.socket.writable().await;
    }

    /// Writes what the socket takes now. If nobody reads any more, the rest is dropped: the end is about to be heard.
    pub(super) fn write(&mut self) {
        while self.has_unsent() {
            if self.unsent.is_empty() {
                self.take_piece();
            }
            match self.socket.write(&self.unsent) {
                Ok(written) if written == self.unsent.len() => self.unsent.clear(),
                Ok(written) => self.unsent.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.unread = true;
                    self.unsent.clear();
                    self.body.clear();
                }
            }
        }
    }

    /// Moves the next piece of the body to what is written next.
    fn take_piece(&mut self) {
        let piece = self.body.split_to(self.body.len().min(PIECE));
        let head = header(Kind::Data, self.body.is_empty(), self.call, piece.len()).expect("a piece fits into a frame");
        self.unsent.reserve(HEADER + piece.len());
        self.unsent.extend_from_slice(&head);
        self.unsent.extend_from_slice(&piece);
    }

    /// Waits until there is something to read, or the end.
    pub(super) async fn readable(&self) {
        self.socket.readable().await;
    }

    /// Takes in what has come; returns whether anything has (its end counts).
    pub(super) fn read(&mut self) -> bool {
        let (socket, decoder) = (&self.socket, &mut self.decoder);
        match scratch::with(|buffer| socket.read(buffer).inspect(|length| decoder.push(&buffer[..*length]))) {
            Ok(0) => self.open = false,
            Ok(_) => (),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) => {
                self.open = false;
                self.unread |= error.kind() == io::ErrorKind::ConnectionReset;
            }
        }
        true
    }

    /// Takes in what a process that has ended left behind. tokio may not have heard of it yet, so the kernel is asked.
    pub(super) fn read_last(&mut self) {
        for _ in 0..LAST_READS {
            let more = scratch::with(|buffer| {
                let received = recv(self.socket.as_fd().as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT);
                self.unread |= received == Err(Errno::ECONNRESET);
                let length = received.unwrap_or(0);
                self.decoder.push(&buffer[..length]);
                length > 0
            });
            if !more {
                return;
            }
        }
    }

    /// The next whole frame of what was taken in.
    ///
    /// # Errors
    /// [`FrameError`]: the stream cannot be read on.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        self.decoder.next()
    }

    /// Whether all that was taken in has been used up.
    pub(super) fn is_used_up(&self) -> bool {
        self.decoder.is_empty()
    }

    /// Whether the other side has said nothing and is there. Asks the kernel.
    pub(super) fn is_quiet(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        self.open
            && self.decoder.is_empty()
            && recv(self.socket.as_fd().as_raw_fd(), &mut [0], flags) == Err(Errno::EAGAIN)
    }

    /// Gives back the memory of large bodies.
    pub(super) fn trim(&mut self) {
        if self.unsent.is_empty() && self.unsent.capacity() > KEEP {
            self.unsent = BytesMut::new();
        }
        if self.decoder.is_empty() && self.decoder.buffer_mut().capacity() > KEEP {
            self.decoder = Decoder::new();
        }
    }
}
