//! Files of large bodies and long output, below one directory of this server.
//!
//! ```text
//! <dir>/<day>/<namespace>/<sha256>               a body, named by its content
//! <dir>/<day>/<namespace>/<execution>.<stream>   output; a byte stands at its offset in the stream, what is in rows is a hole
//! ```
//! Owns the files and nothing else: which row names one is known to [`super::spill`]. The day is that of the row's id, so that a day
//! that retention drops is one directory. A file is on disk before its name is given out. All of it blocks: callers are on a thread
//! for that.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::NaiveDate;
use sha2::{Digest as _, Sha256};

/// How a day is written in the name of a directory.
const DAY: &str = "%Y%m%d";

/// Where the files of a namespace of one day are.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    root: PathBuf,
    day: PathBuf,
    dir: PathBuf,
}

impl Shelf {
    pub(super) fn new(root: &Path, day: NaiveDate, namespace: &str) -> Self {
        let day = root.join(day.format(DAY).to_string());
        Self { root: root.to_owned(), dir: day.join(namespace), day }
    }

    /// Puts a body there and returns its SHA-256. What is there already is left alone.
    pub(super) fn put(&self, body: &[u8]) -> io::Result<String> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = hex(&Sha256::digest(body));
        self.make()?;
        let path = self.dir.join(&name);
        if !path.exists() {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let new = self.dir.join(format!(".{name}.{}-{number}", std::process::id()));
            let written = write_new(&new, body).and_then(|()| fs::rename(&new, &path));
            if written.is_err() {
                // A full disk must not be made fuller by what was not finished.
                let _ = fs::remove_file(&new);
            }
            written?;
        }
        sync(&self.dir)?;
        Ok(name)
    }

    /// The body of that name, whole and unchanged.
    pub(super) fn get(&self, name: &str) -> io::Result<Vec<u8>> {
        let body = fs::read(self.dir.join(name))?;
        if hex(&Sha256::digest(&body)) == name {
            return Ok(body);
        }
        Err(io::Error::other("its content is not what its name says"))
    }

    /// Writes output at its offset in its stream. Again is harmless.
    pub(super) fn write_output(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.make()?;
        let path = self.dir.join(name);
        let new = !path.exists();
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        file.write_all_at(bytes, offset)?;
        file.sync_data()?;
        if new { sync(&self.dir) } else { Ok(()) }
    }

    /// Reads output that was written before.
    pub(super) fn read_output(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        File::open(self.dir.join(name))?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Makes the directory, so that it outlives a power failure.
    fn make(&self) -> io::Result<()> {
        if self.dir.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(&self.dir)?;
        sync(&self.day)?;
        sync(&self.root)
    }

    /// Removes it with all that is in it.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // The last namespace of a day takes the day with it; any other leaves it not empty.
        let _ = fs::remove_dir(&self.day);
        Ok(())
    }

    /// Files in it and their bytes on disk.
    pub(super) fn size(&self) -> (u64, u64) {
        use std::os::unix::fs::MetadataExt as _;
        let files = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        files
            .filter_map(|file| file.metadata().ok())
            .fold((0, 0), |(n, bytes), about| (n + 1, bytes + about.blocks() * 512))
    }
}

/// Every (day, namespace) that has files below `root`, in order.
pub(super) fn shelves(root: &Path) -> Vec<(NaiveDate, String)> {
    let names = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    let mut found = Vec::new();
    for day in names(root) {
        let Ok(date) = NaiveDate::parse_from_str(&day, DAY) else { continue };
        found.extend(names(&root.join(&day)).into_iter().map(|namespace| (date, namespace)));
    }
    found.sort();
    found
}

fn write_new(path: &Path, body: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(body)?;
    file.sync_data()
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(name: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("runlet-blob-{}-{name}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        root
    }

    #[test]
    fn a_body_comes_back_and_a_changed_one_does_not() {
        let root = root("body");
        let day = NaiveDate::from_ymd_opt(2026, 11, 22).unwrap();
        let shelf = Shelf::new(&root, day, "default");
        let name = shelf.put(b"abc").unwrap();
        assert_eq!(shelf.put(b"abc").unwrap(), name);
        assert_eq!(shelf.get(&name).unwrap(), b"abc");
        assert_eq!(shelf.size().0, 1);
        assert_eq!(shelves(&root), [(day, "default".to_owned())]);
        fs::write(root.join("20261122/default").join(&name), b"abd").unwrap();
        assert!(shelf.get(&name).is_err());
        shelf.remove().unwrap();
        assert_eq!(shelf.get(&name).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(shelves(&root).is_empty() && !root.join("20261122").exists());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn output_stands_at_its_offset() {
        let root = root("output");
        let shelf = Shelf::new(&root, NaiveDate::from_ymd_opt(2026, 11, 22).unwrap(), "a");
        shelf.write_output("x.stdout", 1 << 20, b"later").unwrap();
        shelf.write_output("x.stdout", 1 << 20, b"later").unwrap();
        shelf.write_output("x.stdout", (1 << 20) + 5, b" still").unwrap();
        assert_eq!(shelf.read_output("x.stdout", (1 << 20) + 2, 9).unwrap(), b"ter still");
        assert!(shelf.read_output("x.stdout", 1 << 20, 99).is_err());
        // What is in rows takes no space here.
        assert!(shelf.size().1 < 1 << 18);
        fs::remove_dir_all(root).unwrap();
    }
}
