//! Tar to tree and back.

use std::borrow::Cow;
use std::io;

use tar::{Archive, Builder, EntryType, Header};

use super::entry::{self, Fault};
use super::tree::{Node, Tree};
use super::{ArchiveError, MAX_ARCHIVE};

/// Reads a tar. Bodies are borrowed from it: what an entry claims to hold must be there.
pub(super) fn read(tar: &[u8]) -> Result<Tree<'_>, ArchiveError> {
    check_size(tar.len())?;
    let mut tree = Tree::default();
    for entry in Archive::new(tar).entries().map_err(ArchiveError::Malformed)? {
        let mut entry = entry.map_err(ArchiveError::Malformed)?;
        if entry.header().entry_type() == EntryType::XGlobalHeader {
            continue;
        }
        let raw = entry.path_bytes().into_owned();
        let node = match node(&mut entry, tar)? {
            Ok(node) => node,
            Err(fault) => return Err(ArchiveError::Entry { name: entry::shown(&raw), fault }),
        };
        tree.insert(&raw, node)?;
    }
    tree.check_links()?;
    Ok(tree)
}

/// What an entry is: a broken archive outside, a rule that the entry breaks inside.
fn node<'a>(entry: &mut tar::Entry<'_, &[u8]>, tar: &'a [u8]) -> Result<Result<Node<'a>, Fault>, ArchiveError> {
    if let Some(extensions) = entry.pax_extensions().map_err(ArchiveError::Malformed)? {
        for extension in extensions {
            let extension = extension.map_err(ArchiveError::Malformed)?;
            if extension.key_bytes().starts_with(b"GNU.sparse.") {
                return Ok(Err(Fault::Sparse));
            }
        }
    }
    Ok(match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous => {
            let cut = || ArchiveError::Malformed(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends amid a file"));
            let start = usize::try_from(entry.raw_file_position()).map_err(|_| cut())?;
            let size = usize::try_from(entry.size()).map_err(|_| cut())?;
            let end = start.checked_add(size).ok_or_else(cut)?;
            let body = Cow::Borrowed(tar.get(start..end).ok_or_else(cut)?);
            let mode = entry.header().mode().map_err(ArchiveError::Malformed)?;
            Ok(Node::File { body, executable: mode & 0o111 != 0 })
        }
        EntryType::Directory => Ok(Node::Dir),
        EntryType::Symlink => {
            let target = entry.link_name_bytes().unwrap_or_default();
            entry::target(&target).map(|target| Node::Link { target })
        }
        EntryType::Link => Err(Fault::HardLink),
        EntryType::Char | EntryType::Block | EntryType::Fifo => Err(Fault::Special),
        EntryType::GNUSparse => Err(Fault::Sparse),
        _ => Err(Fault::UnknownType),
    })
}

/// Writes the one tar that a tree has. Its digest names revisions: these bytes never change for the same tree.
pub(super) fn write(tree: &Tree<'_>) -> Result<Vec<u8>, ArchiveError> {
    let mut builder = Builder::new(Vec::new());
    for (path, node) in tree.nodes() {
        append(&mut builder, path, node).map_err(ArchiveError::Malformed)?;
    }
    let tar = builder.into_inner().map_err(ArchiveError::Malformed)?;
    check_size(tar.len())?;
    Ok(tar)
}

fn append(builder: &mut Builder<Vec<u8>>, path: &str, node: &Node<'_>) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let (kind, mode, body): (_, _, &[u8]) = match node {
        Node::Dir => (EntryType::Directory, 0o755, &[]),
        Node::File { body, executable } => (EntryType::Regular, if *executable { 0o755 } else { 0o644 }, body),
        Node::Link { .. } => (EntryType::Symlink, 0o777, &[]),
    };
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(u64::try_from(body.len()).expect("a slice's length is a u64"));
    match node {
        Node::Link { target } => builder.append_link(&mut header, path, target),
        Node::Dir | Node::File { .. } => builder.append_data(&mut header, path, body),
    }
}

fn check_size(bytes: usize) -> Result<(), ArchiveError> {
    let fits = u64::try_from(bytes).is_ok_and(|bytes| bytes <= MAX_ARCHIVE.0);
    if fits { Ok(()) } else { Err(ArchiveError::TooLarge(bytes)) }
}
