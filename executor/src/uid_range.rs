//! The uid range of a sandbox: 65,536 ids that no other sandbox on this host has.
//!
//! A range is taken by locking a file and is free again when the last holder of the lock is gone, however it went: there is
//! nothing to clean up and nothing to get wrong after a crash. All servers of a host share the directory of locks.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// First id of the first range. 1879048192 to 2147483647 is the part of the id space that systemd's list of assignments
/// (<https://systemd.io/UIDS-GIDS/>) leaves unused.
const FIRST: u32 = 0x7000_0000;
/// Ids in a range.
pub(crate) const SIZE: u32 = 1 << 16;
/// Number of ranges that sandboxes get.
const COUNT: u32 = 4095;
/// First id of the one range that no sandbox gets: files that stay on disk belong to it.
pub(crate) const AT_REST: u32 = FIRST + COUNT * SIZE;

/// A range, held while this value lives.
#[derive(Debug)]
pub(crate) struct UidRange {
    /// The host id that is 0 inside.
    pub(crate) first: u32,
    _lock: File,
}

impl UidRange {
    /// Takes a range that is free, looking from range number `from` on.
    ///
    /// # Errors
    /// When the directory cannot be used, or all ranges are taken.
    pub(crate) fn take(directory: &Path, from: u32) -> io::Result<Self> {
        for number in (0..COUNT).map(|step| from.wrapping_add(step) % COUNT) {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(directory.join(number.to_string()))?;
            match file.try_lock() {
                Ok(()) => return Ok(Self { first: FIRST + number * SIZE, _lock: file }),
                Err(std::fs::TryLockError::WouldBlock) => {}
                Err(std::fs::TryLockError::Error(error)) => return Err(error),
            }
        }
        Err(io::Error::other("all uid ranges are in use"))
    }
}
