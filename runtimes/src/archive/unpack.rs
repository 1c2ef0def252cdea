//! An archive to a directory on disk, for the side that runs it.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::tree::Node;
use super::{ArchiveError, codec};

/// An archive that could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It is refused.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A file or directory could not be made.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Unpacks an archive into `into`, which is made unless it is there and empty. Everybody may read the result.
///
/// The archive is checked as if it came from outside. Links are made last and nothing existing is ever opened,
/// so that no link can lead a write elsewhere. After an error `into` holds a part of it, for the caller to remove.
///
/// # Errors
/// [`UnpackError`] with the path.
pub fn unpack(archive: &[u8], into: &Path) -> Result<(), UnpackError> {
    let tree = codec::read(archive)?;
    let failed = |path: &Path, source| UnpackError::Write { path: path.to_owned(), source };
    fresh_directory(into).map_err(|source| failed(into, source))?;
    let (links, rest): (Vec<_>, Vec<_>) = tree.nodes().partition(|(_, node)| matches!(node, Node::Link { .. }));
    for (path, node) in rest.into_iter().chain(links) {
        let path = into.join(path);
        make(&path, node).map_err(|source| failed(&path, source))?;
    }
    Ok(())
}

fn fresh_directory(path: &Path) -> io::Result<()> {
    match make(path, &Node::Dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs::read_dir(path)?.next().is_some() {
                return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, "the directory is not empty"));
            }
            fs::set_permissions(path, Permissions::from_mode(0o755))
        }
        made => made,
    }
}

/// Modes are set afterwards: the umask has no say in them.
fn make(path: &Path, node: &Node<'_>) -> io::Result<()> {
    match node {
        Node::Dir => {
            fs::create_dir(path)?;
            fs::set_permissions(path, Permissions::from_mode(0o755))
        }
        Node::File { body, executable } => {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(body)?;
            file.set_permissions(Permissions::from_mode(if *executable { 0o755 } else { 0o644 }))
        }
        Node::Link { target } => symlink(target, path),
    }
}
