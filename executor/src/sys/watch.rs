//! Registering a socket with tokio, which is unsafe for types whose descriptor might change.

use std::io;
use std::os::unix::net::UnixStream;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::wire::Seqpacket;

/// Watches `socket` for being readable and writable; it must be non-blocking.
///
/// # Errors
/// When it cannot be registered with the runtime.
pub(crate) fn watch(socket: Seqpacket) -> io::Result<AsyncFd<Seqpacket>> {
    // SAFETY: a `Seqpacket` owns one descriptor, always returns that one, and closes it only when it is dropped.
    unsafe { AsyncFd::register(socket) }.map_err(io::Error::from)
}

/// Watches `stream` for what interests; it must be non-blocking.
///
/// # Errors
/// When it cannot be registered with the runtime.
pub(crate) fn watch_stream(stream: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    // SAFETY: a `UnixStream` owns one descriptor, always returns that one, and closes it only when it is dropped.
    unsafe { AsyncFd::register_with_interest(stream, interest) }.map_err(io::Error::from)
}
