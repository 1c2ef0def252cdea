//! Revisions on disk: unpacked once, under their digest, whatever their namespace: content that is equal is equal.
//!
//! A directory is there completely or not at all: it is filled beside its place and then renamed.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use runlet_core::id::ExecutionId;
use runlet_core::name::{Namespace, RevisionDigest};
use runlet_core::store::{Store, StoreError};
use tokio::sync::OnceCell;

/// First letters of a directory that is being filled.
const UNFINISHED: &str = ".unpack-";

/// Why a revision is not on disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RevisionError {
    /// Its archive could not be read.
    #[error("could not read the archive of revision {0}: the database does not answer")]
    Store(RevisionDigest, #[source] StoreError),
    /// It is not on record.
    #[error("revision {0} is not on record: deploy the function again")]
    Missing(RevisionDigest),
    /// It could not be unpacked.
    #[error("could not unpack revision {0}: {1}")]
    Unpack(RevisionDigest, String),
}

/// The directory of unpacked revisions.
#[derive(Debug)]
pub(crate) struct Revisions {
    dir: Arc<Path>,
    store: Store,
    /// An entry that is set is on disk; one that is not is being unpacked, by whoever came first.
    known: Mutex<HashMap<RevisionDigest, Arc<OnceCell<()>>>>,
}

impl Revisions {
    pub(crate) fn new(dir: &Path, store: Store) -> Self {
        Self { dir: Arc::from(dir), store, known: Mutex::default() }
    }

    /// Unpacks the revision unless that was done before.
    pub(crate) async fn ensure(&self, namespace: &Namespace, digest: &RevisionDigest) -> Result<(), RevisionError> {
        let cell = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(known.entry(digest.clone()).or_default())
        };
        cell.get_or_try_init(|| self.fetch(namespace, digest)).await.copied()
    }

    /// Removes what a former life of the server has left half done.
    pub(crate) async fn tidy(&self) {
        let dir = Arc::clone(&self.dir);
        let tidied = tokio::task::spawn_blocking(move || tidy(&dir)).await;
        if let Ok(Err(error)) = tidied {
            tracing::warn!(dir = %self.dir.display(), %error, "could not remove half unpacked revisions");
        }
    }

    async fn fetch(&self, namespace: &Namespace, digest: &RevisionDigest) -> Result<(), RevisionError> {
        let place = self.dir.join(digest.hex());
        let failed = |error: String| RevisionError::Unpack(digest.clone(), error);
        if tokio::fs::try_exists(&place).await.map_err(|error| failed(error.to_string()))? {
            return Ok(());
        }
        let archive = self.store.archive(namespace, digest).await;
        let archive = archive.map_err(|error| RevisionError::Store(digest.clone(), error))?;
        let archive = archive.ok_or_else(|| RevisionError::Missing(digest.clone()))?;
        let unfinished = self.dir.join(format!("{UNFINISHED}{}", ExecutionId::new()));
        let task = tokio::task::spawn_blocking(move || unpack(&archive, &unfinished, &place));
        task.await.map_err(|error| failed(error.to_string()))?.map_err(failed)
    }
}

fn unpack(archive: &Bytes, unfinished: &Path, place: &PathBuf) -> Result<(), String> {
    let fill = || -> Result<(), String> {
        std::fs::create_dir(unfinished).map_err(|error| error.to_string())?;
        runlet_runtimes::archive::unpack(archive, unfinished).map_err(|error| error.to_string())?;
        // Sandboxes read it as another user.
        let readable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(unfinished, readable).map_err(|error| error.to_string())?;
        match std::fs::rename(unfinished, place) {
            // Another server that shares the directory was faster.
            Err(error) if place.is_dir() => {
                tracing::debug!(%error, "the revision is there already");
                std::fs::remove_dir_all(unfinished).map_err(|error| error.to_string())
            }
            renamed => renamed.map_err(|error| error.to_string()),
        }
    };
    fill().inspect_err(|_| {
        // What is left is removed at the next start.
        let _ = std::fs::remove_dir_all(unfinished);
    })
}

fn tidy(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
