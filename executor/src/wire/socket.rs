//! A seqpacket socket that carries messages and descriptors.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::cmsg_space;
use nix::sys::memfd::{MemFdCreateFlag, memfd_create};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg, sendmsg,
    socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sys::fds::adopt_received;

/// Largest JSON that travels inside a datagram, bytes; well below the default socket buffer.
const INLINE: usize = 32 << 10;
/// Largest JSON at all, bytes: an environment, arguments, and a script with its escapes.
const LARGEST: u64 = 64 << 20;
/// Most descriptors that go along with a message.
const MAX_FDS: usize = 8;

/// A message and what came with it.
#[derive(Debug)]
pub(crate) struct Received<T> {
    /// The message.
    pub(crate) message: T,
    /// Its descriptors.
    pub(crate) fds: Vec<OwnedFd>,
}

/// One end of a seqpacket socket pair.
#[derive(Debug)]
pub(crate) struct Seqpacket(OwnedFd);

impl Seqpacket {
    /// A connected pair, both ends close-on-exec and blocking.
    ///
    /// # Errors
    /// The errno of `socketpair`.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self(a), Self(b)))
    }

    /// Takes over a descriptor that is such a socket.
    #[must_use]
    pub(crate) const fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// The descriptor, for one who passes it on.
    #[must_use]
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Makes sending and receiving return `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// The errno of `fcntl`.
    pub(crate) fn set_nonblocking(&self) -> io::Result<()> {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        let flags = OFlag::from_bits_retain(fcntl(self.0.as_raw_fd(), FcntlArg::F_GETFL)?);
        fcntl(self.0.as_raw_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(())
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The errno of `sendmsg`; a message that cannot be encoded is `InvalidData`.
    pub(crate) fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut bytes = vec![b'J'];
        serde_json::to_writer(&mut bytes, message)?;
        if bytes.len() <= INLINE {
            return self.send_raw(&bytes, fds);
        }
        let mut file = std::fs::File::from(memfd_create(c"runlet-message", MemFdCreateFlag::MFD_CLOEXEC)?);
        file.write_all(bytes.get(1..).unwrap_or_default())?;
        let mut all = vec![file.as_fd()];
        all.extend_from_slice(fds);
        self.send_raw(b"M", &all)
    }

    fn send_raw(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let raw: Vec<i32> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        let sent =
            sendmsg::<UnixAddr>(self.0.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
        debug_assert_eq!(sent, bytes.len(), "a seqpacket is sent whole");
        Ok(())
    }

    /// Receives a message; `None` when the other end is closed.
    ///
    /// # Errors
    /// The errno of `recvmsg`, or `InvalidData` for what is no message of type `T`.
    pub(crate) fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<Received<T>>> {
        let mut buffer = vec![0_u8; INLINE];
        let mut space = cmsg_space!([i32; MAX_FDS]);
        let mut fds = Vec::new();
        let (length, truncated) = {
            let mut slices = [IoSliceMut::new(&mut buffer)];
            let received =
                recvmsg::<UnixAddr>(self.0.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
            for control in received.cmsgs()? {
                if let ControlMessageOwned::ScmRights(raw) = control {
                    fds.extend(adopt_received(raw));
                }
            }
            let lost = received.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
            (received.bytes, lost)
        };
        if length == 0 {
            return Ok(None);
        }
        if truncated {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message was cut"));
        }
        let message = match buffer.split_first() {
            Some((b'J', _)) => serde_json::from_slice(buffer.get(1..length).unwrap_or_default())?,
            Some((b'M', _)) if !fds.is_empty() => read_memfd(fds.remove(0))?,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "this is no message")),
        };
        Ok(Some(Received { message, fds }))
    }
}

fn read_memfd<T: DeserializeOwned>(fd: OwnedFd) -> io::Result<T> {
    let mut file = std::fs::File::from(fd);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

impl AsFd for Seqpacket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::os::fd::AsRawFd for Seqpacket {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_descriptors_arrive_whatever_their_size() {
        let (a, b) = Seqpacket::pair().expect("a pair");
        let (pipe_read, pipe_write) = nix::unistd::pipe().expect("a pipe");
        for size in [0, 100, INLINE, 200 << 10] {
            let text = "x".repeat(size);
            a.send(&text, &[pipe_write.as_fd()]).expect("it is sent");
            let received: Received<String> = b.receive().expect("it is read").expect("it is there");
            assert_eq!(received.message, text);
            assert_eq!(received.fds.len(), 1);
            nix::unistd::write(&received.fds[0], b"!").expect("the descriptor works");
            let mut byte = [0];
            nix::unistd::read(pipe_read.as_raw_fd(), &mut byte).expect("it is the same pipe");
        }
        drop(a);
        assert!(b.receive::<String>().expect("an end is no error").is_none());
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        let (a, b) = Seqpacket::pair().expect("a pair");
        for bytes in [&b"X"[..], b"J{", b"M", b"J3"] {
            a.send_raw(bytes, &[]).expect("it is sent");
            assert!(b.receive::<String>().is_err());
        }
    }
}
