//! Our end of a stream socket to a process in a sandbox.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv, send};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use crate::sys::watch::watch_stream;

/// Pause before a socket without room is tried again, if no descriptor is left to watch it by.
const UNWATCHED: Duration = Duration::from_millis(1);

/// A stream socket that is watched for what comes, and for room only while it has none.
///
/// tokio's own stream is watched for both. But a Unix socket says that it has room whenever its peer has read something: each call
/// would wake the server once for nothing.
#[derive(Debug)]
pub struct Socket {
    stream: AsyncFd<UnixStream>,
    /// The same socket, since there was no room in it.
    full: Option<AsyncFd<UnixStream>>,
}

impl Socket {
    /// A connected pair: ours, and one that blocks, for a process. To be called within a runtime.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let stream = watch_stream(ours, Interest::READABLE)?;
        Ok((Self { stream, full: None }, theirs.into()))
    }

    /// Waits until there is something to read, or the end.
    pub(crate) async fn readable(&self) {
        // An error shows itself when it is read.
        drop(self.stream.readable().await);
    }

    /// Reads what has come, as far as tokio has heard of it; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock` if nothing has, or what is wrong with the socket.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut got = 0;
        let read = self.stream.try_io(Interest::READABLE, |stream| {
            got = recv(stream.as_raw_fd(), buffer, MsgFlags::empty())?;
            // Who got less than there was room for has got all, and will hear of more: no second look is needed.
            if got == 0 || got == buffer.len() { Ok(got) } else { Err(io::ErrorKind::WouldBlock.into()) }
        });
        if got > 0 { Ok(got) } else { read }
    }

    /// Writes what there is room for.
    ///
    /// # Errors
    /// `WouldBlock` if there is none, or what is wrong with the socket.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stream = self.stream.get_ref();
        let written = send(stream.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL).map_err(io::Error::from);
        // Watched anew each time: what had been heard before is not true any more.
        self.full = match &written {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let watched = stream.try_clone().and_then(|stream| watch_stream(stream, Interest::WRITABLE));
                watched.inspect_err(|error| tracing::debug!(%error, "a full socket cannot be watched")).ok()
            }
            _ => None,
        };
        written
    }

    /// Waits until there may be room, after there was none.
    pub(crate) async fn writable(&self) {
        match &self.full {
            // An error shows itself when it is written to.
            Some(full) => drop(full.writable().await),
            None => sleep(UNWATCHED).await,
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.get_ref().as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    fn pair() -> (Socket, UnixStream) {
        let (ours, theirs) = Socket::pair().expect("a socket");
        (ours, theirs.into())
    }

    #[tokio::test]
    async fn what_comes_is_read_to_its_end() {
        let (ours, mut theirs) = pair();
        let mut buffer = [0; 4];
        let nothing = ours.read(&mut buffer).expect_err("nothing has come");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        theirs.write_all(b"whole").expect("room");
        drop(theirs);
        for expected in [&b"whol"[..], b"e", b""] {
            ours.readable().await;
            let length = ours.read(&mut buffer).expect("it has come");
            assert_eq!(&buffer[..length], expected);
        }
    }

    #[tokio::test]
    async fn who_has_read_a_part_hears_of_the_next() {
        let (ours, mut theirs) = pair();
        for said in [&b"one"[..], b"two", b"three"] {
            theirs.write_all(said).expect("room");
            ours.readable().await;
            let mut buffer = [0; 64];
            let length = ours.read(&mut buffer).expect("it has come");
            assert_eq!(&buffer[..length], said);
        }
    }

    #[tokio::test]
    async fn a_full_one_is_heard_of_when_it_has_room_again_and_again() {
        let (mut ours, mut theirs) = pair();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).expect("it is read");
            all.len()
        });
        let (bytes, mut left) = (vec![7; 64 << 10], 16 << 20);
        while left > 0 {
            match ours.write(&bytes[..bytes.len().min(left)]) {
                Ok(written) => left -= written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ours.writable().await,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(ours.full.is_none(), "it is watched no longer than it is full");
        drop(ours);
        assert_eq!(reader.join().expect("no panic"), 16 << 20);
    }

    #[tokio::test]
    async fn whose_peer_has_gone_is_told_so() {
        let (mut ours, theirs) = pair();
        drop(theirs);
        let gone = ours.write(b"x").expect_err("nobody reads");
        assert_eq!(gone.kind(), io::ErrorKind::BrokenPipe);
    }
}
