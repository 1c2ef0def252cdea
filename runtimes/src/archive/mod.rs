//! The archive of a revision: a function's directory as one canonical tar, named by its own SHA-256.
//!
//! ```text
//!  directory ──pack──► tar ══ upload ══► normalise ──► canonical tar, digest, manifest ──unpack──► directory
//! ```
//! Whatever comes in is read into a [`tree::Tree`], which holds every rule about names and links, and is written anew from
//! it: what is stored never has a byte that this module did not choose. Archives are not compressed, so that nothing can
//! be larger unpacked than it came in.

mod codec;
mod entry;
mod handler;
mod pack;
#[cfg(test)]
mod tests;
mod tree;
mod unpack;

use bytes::Bytes;
use runlet_core::manifest::{self, Manifest, ManifestError};
use runlet_core::name::RevisionDigest;
use runlet_core::unit::ByteSize;
use sha2::{Digest as _, Sha256};

pub use entry::Fault;
pub use pack::{PackError, pack};
pub use unpack::{UnpackError, unpack};

use tree::Tree;

/// The largest archive.
pub const MAX_ARCHIVE: ByteSize = ByteSize::mib(50);

/// Most files, directories and links in an archive.
pub const MAX_ENTRIES: usize = 10_000;

/// The largest `function.toml`.
const MAX_MANIFEST: usize = 256 << 10;

/// An archive that is refused.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// More bytes than [`MAX_ARCHIVE`].
    #[error("the archive has {0} bytes, where {MAX_ARCHIVE} is the most; leave out what the code does not need")]
    TooLarge(usize),
    /// More entries than [`MAX_ENTRIES`].
    #[error("the archive has more than {MAX_ENTRIES} files and directories; leave out what the code does not need")]
    TooManyEntries,
    /// No tar, or a broken one.
    #[error("this is no whole, uncompressed tar archive: {0}")]
    Malformed(#[source] std::io::Error),
    /// One entry breaks a rule.
    #[error("entry `{name}`: {fault}")]
    Entry {
        /// Its name, made fit for a terminal.
        name: String,
        /// The rule.
        fault: Fault,
    },
    /// The directory has no manifest.
    #[error("there is no {} at the top of the archive: a function's directory must have one", manifest::FILE)]
    NoManifest,
    /// The manifest breaks a rule, or what it names is not in the directory.
    #[error(transparent)]
    Manifest(ManifestError),
}

/// An archive that is fit to be stored and run.
#[derive(Debug, Clone)]
pub struct Normalised {
    /// The canonical tar.
    pub archive: Bytes,
    /// Its name.
    pub digest: RevisionDigest,
    /// The manifest in it.
    pub manifest: Manifest,
}

/// Reads an archive of unknown origin, checks everything about it and writes it anew: same content, same bytes,
/// whoever packed it, in whatever order and with whatever owners, times and modes.
///
/// # Errors
/// [`ArchiveError`] for the first rule that is broken.
pub fn normalise(tar: &[u8]) -> Result<Normalised, ArchiveError> {
    let tree = codec::read(tar)?;
    let manifest = inspect(&tree)?;
    let archive = Bytes::from(codec::write(&tree)?);
    let digest = RevisionDigest::from_sha256(&Sha256::digest(&archive).into());
    Ok(Normalised { archive, digest, manifest })
}

/// The manifest of a directory whose handler is in it.
fn inspect(tree: &Tree<'_>) -> Result<Manifest, ArchiveError> {
    let whole_file = |message: &str| {
        ArchiveError::Manifest(ManifestError { line: None, key: String::new(), message: message.to_owned() })
    };
    let bytes = tree.file(manifest::FILE).ok_or(ArchiveError::NoManifest)?.body;
    if bytes.len() > MAX_MANIFEST {
        return Err(whole_file("it is larger than 256KiB; put data into files of its own"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| whole_file("it is not UTF-8; save it as UTF-8"))?;
    let manifest = Manifest::parse(text).map_err(ArchiveError::Manifest)?;
    handler::check(&manifest, text, tree).map_err(ArchiveError::Manifest)?;
    Ok(manifest)
}
