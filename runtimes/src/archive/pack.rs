//! A directory on disk to an archive, for the side that deploys.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use runlet_core::unit::ByteSize;

use super::entry::{self, Fault};
use super::tree::{Node, Tree};
use super::{ArchiveError, MAX_ARCHIVE, MAX_ENTRIES, codec, inspect};

/// A directory that cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file or directory cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The files are too much for one archive.
    #[error(
        "{} holds more than {MAX_ARCHIVE}; the largest file so far is {} ({size}): leave out what the code does not need",
        dir.display(), largest.display()
    )]
    TooLarge {
        /// The directory.
        dir: PathBuf,
        /// The largest file met.
        largest: PathBuf,
        /// Its size.
        size: ByteSize,
    },
    /// The server would refuse what is in it.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

/// Packs a function's directory and checks it as the server will. Left out: `.git`, `__pycache__` and `*.pyc`.
///
/// # Errors
/// [`PackError`] with the path that is in the way.
pub fn pack(dir: &Path) -> Result<Vec<u8>, PackError> {
    let mut packing = Packing { dir, tree: Tree::default(), total: 0, count: 0, largest: (PathBuf::new(), 0) };
    let mut todo = vec![PathBuf::new()];
    while let Some(below) = todo.pop() {
        packing.directory(&below, &mut todo)?;
    }
    packing.tree.check_links()?;
    inspect(&packing.tree)?;
    Ok(codec::write(&packing.tree)?)
}

struct Packing<'d> {
    dir: &'d Path,
    tree: Tree<'static>,
    total: u64,
    count: usize,
    largest: (PathBuf, u64),
}

impl Packing<'_> {
    fn directory(&mut self, below: &Path, todo: &mut Vec<PathBuf>) -> Result<(), PackError> {
        let path = self.dir.join(below);
        let failed = |source| PackError::Read { path: path.clone(), source };
        for found in fs::read_dir(&path).map_err(failed)? {
            let name = found.map_err(failed)?.file_name();
            let bytes = name.as_bytes();
            if bytes == b".git" || bytes == b"__pycache__" || bytes.ends_with(b".pyc") {
                continue;
            }
            // Also counted here, so that a wrong directory is noticed before all of it is walked.
            self.count += 1;
            if self.count > MAX_ENTRIES {
                return Err(ArchiveError::TooManyEntries.into());
            }
            let relative = below.join(&name);
            let node = self.node(&relative)?;
            if node == Node::Dir {
                todo.push(relative.clone());
            }
            self.tree.insert(relative.as_os_str().as_bytes(), node)?;
        }
        Ok(())
    }

    fn node(&mut self, relative: &Path) -> Result<Node<'static>, PackError> {
        let path = self.dir.join(relative);
        let failed = |source| PackError::Read { path: path.clone(), source };
        let refuse = |fault| ArchiveError::Entry { name: entry::shown(relative.as_os_str().as_bytes()), fault };
        let metadata = fs::symlink_metadata(&path).map_err(failed)?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            return Ok(Node::Dir);
        }
        if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(failed)?;
            let target = entry::target(target.as_os_str().as_bytes()).map_err(refuse)?;
            return Ok(Node::Link { target });
        }
        if !kind.is_file() {
            return Err(refuse(Fault::Special).into());
        }
        self.account(relative, metadata.len())?;
        // The file may grow meanwhile: never more is read than was accounted for.
        let mut body = Vec::new();
        File::open(&path).and_then(|file| file.take(metadata.len()).read_to_end(&mut body)).map_err(failed)?;
        Ok(Node::File { body: Cow::Owned(body), executable: metadata.permissions().mode() & 0o111 != 0 })
    }

    fn account(&mut self, relative: &Path, size: u64) -> Result<(), PackError> {
        if size > self.largest.1 {
            self.largest = (relative.to_owned(), size);
        }
        self.total = self.total.saturating_add(size);
        if self.total <= MAX_ARCHIVE.0 {
            return Ok(());
        }
        let (largest, size) = self.largest.clone();
        // To the MiB: an exact count of bytes says less.
        let size = ByteSize(if size >> 20 > 0 { size >> 20 << 20 } else { size });
        Err(PackError::TooLarge { dir: self.dir.to_owned(), largest, size })
    }
}
