//! Registering a socket with tokio, which is unsafe for types whose descriptor might change.

use std::io;

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
