//! The files of the spool: `00000000000000000007.spool` and so on, written at the end of the last one, read from the first.
//!
//! A file begins with [`MAGIC`]. Each life of the server begins a new one, so that nothing is ever written behind a record
//! that the death of the one before has cut off. Owns files and positions; refuses to know what records say.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::record;

const MAGIC: &[u8; 8] = b"rlspool2";
const SUFFIX: &str = "spool";

/// A file is not written to beyond this size: what was read of it is removed in pieces of that size.
const FULL: u64 = 8 << 20;

/// A file of the spool and how much of it is whole.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    file: File,
    /// Behind the last whole record.
    end: u64,
}

/// What an earlier life left.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub(super) bytes: u64,
    pub(super) records: u64,
    pub(super) segments: VecDeque<Reading>,
}

/// A segment that is being read.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) path: PathBuf,
    file: File,
    /// Where the next record begins.
    at: u64,
    /// Its size when it was opened; of an earlier life, it does not grow.
    pub(super) size: u64,
}

/// The end of the spool: where records are appended.
#[derive(Debug)]
pub(super) struct Segments {
    dir: PathBuf,
    next: u64,
    /// The last one is appended to; the others wait to be taken by the drain.
    open: VecDeque<Segment>,
}

impl Segments {
    /// Opens the directory and looks through what is there.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn open(dir: &Path) -> io::Result<(Self, Left)> {
        let mut found: Vec<(u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            if let Some(number) = number.filter(|_| path.extension().is_some_and(|ext| ext == SUFFIX)) {
                found.push((number, path));
            }
        }
        found.sort();
        let next = found.last().map_or(1, |(number, _)| number + 1);
        let mut left = Left::default();
        for (_, path) in found {
            left.add(path)?;
        }
        Ok((Self { dir: dir.to_owned(), next, open: VecDeque::new() }, left))
    }

    /// Appends a record.
    ///
    /// # Errors
    /// When the disk refuses: then the file is as it was before.
    pub(super) fn append(&mut self, record: &[u8]) -> io::Result<()> {
        if self.open.back().is_none_or(|segment| segment.end >= FULL) {
            self.begin()?;
        }
        let segment = self.open.back_mut().expect("one was begun just now");
        // Of a write that fails half-way, the part is overwritten by the next record; to a restart its checksum is wrong.
        segment.file.write_all_at(record, segment.end)?;
        segment.end += record.len() as u64;
        Ok(())
    }

    fn begin(&mut self) -> io::Result<()> {
        let path = self.dir.join(format!("{:020}.{SUFFIX}", self.next));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        // Taken even if the next step fails: the name is used up.
        self.next += 1;
        file.write_all_at(MAGIC, 0)?;
        self.open.push_back(Segment { path, file, end: MAGIC.len() as u64 });
        Ok(())
    }

    /// The oldest segment that has not been taken yet, to be read.
    pub(super) fn first(&self) -> io::Result<Option<Reading>> {
        let Some(segment) = self.open.front() else { return Ok(None) };
        let file = segment.file.try_clone()?;
        Ok(Some(Reading { path: segment.path.clone(), file, at: MAGIC.len() as u64, size: segment.end }))
    }

    /// How much of the segment at `path` is whole, and whether nothing more will be appended to it. `None`: it is of an earlier life.
    pub(super) fn state(&self, path: &Path) -> Option<(u64, bool)> {
        let index = self.open.iter().position(|segment| segment.path == path)?;
        Some((self.open[index].end, index + 1 < self.open.len()))
    }

    /// Removes a segment that has been read to its end. The next record begins a new one.
    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.open.retain(|segment| segment.path != path);
        fs::remove_file(path)
    }
}

impl Segments {
    /// Keeps records in a file that is never read again by itself.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn set_aside(&self, records: &[Bytes]) -> io::Result<PathBuf> {
        let path = self.dir.join(format!("refused-{}", crate::clock::now().timestamp_micros()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        io::Write::write_all(&mut file, MAGIC)?;
        records.iter().try_for_each(|record| io::Write::write_all(&mut file, record))?;
        Ok(path)
    }
}

impl Left {
    /// Looks through a segment of an earlier life: up to where it is sound.
    fn add(&mut self, path: PathBuf) -> io::Result<()> {
        let file = File::open(&path)?;
        let (size, at) = (file.metadata()?.len(), MAGIC.len() as u64);
        let mut magic = [0; MAGIC.len()];
        if size < at {
            // The server died while it began this file.
            return fs::remove_file(&path);
        }
        file.read_exact_at(&mut magic, 0)?;
        if magic != *MAGIC {
            tracing::error!("{} was written by another version of runlet: it is left alone", path.display());
            return Ok(());
        }
        let mut reading = Reading { path, file, at, size };
        loop {
            let (records, bytes) = reading.take(size)?;
            if records.is_empty() {
                break;
            }
            self.records += records.len() as u64;
            self.bytes += bytes;
        }
        if reading.at < size {
            // Usually the last record of a server that was killed while it wrote.
            let (bytes, path) = (size - reading.at, reading.path.display());
            tracing::warn!(bytes, "the end of {path} is no whole record and is passed over");
        }
        reading.at = at;
        self.segments.push_back(reading);
        Ok(())
    }
}

/// Read at once, unless a single record is longer.
const PIECE: u64 = 1 << 20;

impl Reading {
    /// The whole records from where it is, up to `end` and to about [`PIECE`] bytes, and how many bytes they are.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn take(&mut self, end: u64) -> io::Result<(Vec<Bytes>, u64)> {
        let mut piece = self.read(PIECE.min(end.saturating_sub(self.at)))?;
        if let Some(whole) = record::announced(&piece).filter(|whole| *whole > piece.len()) {
            let whole = u64::try_from(whole).unwrap_or(u64::MAX);
            if whole > end.saturating_sub(self.at) {
                return Ok((Vec::new(), 0));
            }
            piece = self.read(whole)?;
        }
        let mut records = Vec::new();
        let start = self.at;
        while let Some(length) = record::length(&piece) {
            records.push(piece.split_to(length));
            self.at += length as u64;
        }
        Ok((records, self.at - start))
    }

    fn read(&self, length: u64) -> io::Result<Bytes> {
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, self.at)?;
        Ok(bytes.into())
    }
}
