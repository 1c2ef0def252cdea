//! Free space of the data directory, against a floor: below it no new work is taken, while what runs goes on record.
//!
//! Asked of the kernel twice a second at most, by whoever wants to begin something. It comes back by itself, a little above the
//! floor, so that it does not flicker.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;

/// How long an answer of the kernel is good for.
const FRESH: Duration = Duration::from_millis(500);

/// The floor where none is given: so much, or a twentieth of the file system if that is less.
const USUAL: u64 = 1 << 30;

/// The least free space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Floor {
    /// 1 GiB, or 5 % of the file system if that is less.
    Usual,
    /// So many bytes; 0: none.
    Bytes(u64),
}

impl std::str::FromStr for Floor {
    type Err = crate::unit::BadUnit;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" { Ok(Self::Usual) } else { Ok(Self::Bytes(text.parse::<crate::unit::ByteSize>()?.0)) }
    }
}

impl std::fmt::Display for Floor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Usual => f.write_str("auto"),
            Self::Bytes(bytes) => crate::unit::ByteSize(*bytes).fmt(f),
        }
    }
}

/// What the kernel says about a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that may still be written.
    pub free: u64,
    /// Its size, bytes.
    pub total: u64,
}

/// There is too little space for new work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the disk of the data directory is nearly full: {free} bytes are free, below the floor of {floor}; nothing new is accepted until \
     there is more, what runs goes on"
)]
pub struct DiskLow {
    /// Bytes that are free.
    pub free: u64,
    /// The floor, bytes.
    pub floor: u64,
}

/// Watches the file system of one directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Disk {
    watched: Arc<Watched>,
}

#[derive(Debug)]
struct Watched {
    path: PathBuf,
    floor: Floor,
    last: Mutex<Option<(Instant, Option<DiskLow>)>>,
}

impl Disk {
    /// Watches the file system that `path` is on.
    #[must_use]
    pub fn new(path: &Path, floor: Floor) -> Self {
        Self { watched: Arc::new(Watched { path: path.to_owned(), floor, last: Mutex::new(None) }) }
    }

    /// Free and total bytes; `None` where the kernel does not tell.
    #[must_use]
    pub fn space(&self) -> Option<Space> {
        let about = statvfs(&self.watched.path).ok()?;
        let unit = about.fragment_size();
        Some(Space { free: about.blocks_available().saturating_mul(unit), total: about.blocks().saturating_mul(unit) })
    }

    /// The floor in bytes for a file system of `total` bytes.
    #[must_use]
    pub fn floor(&self, total: u64) -> u64 {
        match self.watched.floor {
            Floor::Usual => USUAL.min(total / 20),
            Floor::Bytes(bytes) => bytes,
        }
    }

    /// Whether there is room for new work.
    ///
    /// # Errors
    /// [`DiskLow`] below the floor.
    pub fn check(&self) -> Result<(), DiskLow> {
        let mut last = self.watched.last.lock().unwrap_or_else(PoisonError::into_inner);
        let was = match *last {
            Some((at, answer)) if at.elapsed() < FRESH => return answer.map_or(Ok(()), Err),
            Some((_, answer)) => answer,
            None => None,
        };
        // A file system that cannot be asked is no reason to refuse: what is wrong with it shows when it is written to.
        let now = self.space().and_then(|space| low(space, self.floor(space.total), was.is_some()));
        match (was, now) {
            (None, Some(low)) => tracing::error!(
                disk.free = low.free,
                disk.floor = low.floor,
                "the disk is nearly full: new work is refused"
            ),
            (Some(_), None) => tracing::info!("the disk has room again: new work is accepted"),
            _ => {}
        }
        *last = Some((Instant::now(), now));
        now.map_or(Ok(()), Err)
    }
}

/// Below the floor it is low; once it is, a tenth more than the floor is needed.
fn low(space: Space, floor: u64, was_low: bool) -> Option<DiskLow> {
    let need = if was_low { floor.saturating_add(floor / 10) } else { floor };
    (space.free < need).then_some(DiskLow { free: space.free, floor })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_a_little_above_the_floor() {
        let at = |free| Space { free, total: 10_000 };
        assert_eq!(low(at(1000), 1000, false), None);
        assert_eq!(low(at(999), 1000, false), Some(DiskLow { free: 999, floor: 1000 }));
        assert!(low(at(1050), 1000, true).is_some());
        assert_eq!(low(at(1100), 1000, true), None);
        assert_eq!(low(at(0), 0, true), None);
    }

    #[test]
    fn a_small_disk_has_a_small_floor() {
        let disk = Disk::new(Path::new("/"), Floor::Usual);
        assert_eq!(disk.floor(100 << 30), 1 << 30);
        assert_eq!(disk.floor(2000), 100);
        assert_eq!("auto".parse(), Ok(Floor::Usual));
        assert_eq!("2GiB".parse::<Floor>().map(|floor| floor.to_string()), Ok("2GiB".to_owned()));
        assert!("5%".parse::<Floor>().is_err());
    }

    #[test]
    fn a_real_file_system_answers() {
        let disk = Disk::new(Path::new("/"), Floor::Bytes(u64::MAX));
        assert!(disk.space().is_some_and(|space| space.total > 0));
        assert!(disk.check().is_err());
        assert!(Disk::new(Path::new("/"), Floor::Bytes(0)).check().is_ok());
    }
}
