//! File descriptors: received ones become owned, all others can be closed.

use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

/// Takes ownership of descriptors that the kernel has just installed for this process by `SCM_RIGHTS`.
///
/// To be called once per received message, on the list of that message.
#[must_use]
pub(crate) fn adopt_received(fds: Vec<RawFd>) -> Vec<OwnedFd> {
    // SAFETY: recvmsg installed these descriptors for us a moment ago and nobody else has seen their numbers, so each is open
    // and owned by nobody. nix has no wrapper that returns them owned.
    fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect()
}

/// Marks every descriptor from `first` on close-on-exec, so that only those below it survive an exec.
///
/// # Errors
/// The errno of `close_range`.
pub(crate) fn close_on_exec_from(first: u32) -> std::io::Result<()> {
    range(first, libc::CLOSE_RANGE_CLOEXEC)
}

/// Moves descriptor `fd` to the number 3 and closes every one above, owned or not. What is left are 0, 1, 2 and the one returned.
///
/// Only for a forked child that leaves its parent's Rust values behind for good.
///
/// # Errors
/// The errno of `dup2` or of `close_range`.
pub(crate) fn keep_only(fd: RawFd) -> std::io::Result<OwnedFd> {
    const KEPT: RawFd = 3;
    if fd != KEPT {
        nix::unistd::dup2(fd, KEPT)?;
    }
    range(4, 0)?;
    // SAFETY: descriptor 3 is open since a moment ago, and the value that may have owned that number in the parent is one that
    // the caller has left behind.
    Ok(unsafe { OwnedFd::from_raw_fd(KEPT) })
}

fn range(first: u32, flags: u32) -> std::io::Result<()> {
    // SAFETY: the call touches no memory. Callers that close (flags 0) are forked children that leave their parent's Rust
    // values behind for good and use only the descriptors below `first` from here on.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
