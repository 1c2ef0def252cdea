//! Which bytes stand in a row and which in a file, and finding them again: to readers it makes no difference.
//!
//! A body over the bound is written to a file before its row commits, and the row names server, content and size. A file is on one host:
//! another server says whose it is. Where several servers may share the database, the payload of queued work stays in its row, for
//! whoever claims it must have it.

use std::path::PathBuf;

use bytes::Bytes;
use chrono::NaiveDate;
use uuid::Uuid;

use super::blob::Shelf;
use super::{Store, StoreError};
use crate::clock;

/// Where and when bytes go to files.
#[derive(Debug, Clone)]
pub struct Spill {
    /// Directory of the files, writable by the server.
    pub dir: PathBuf,
    /// A body, or what a stream has written, over so many bytes goes to a file; `None`: nothing new does.
    pub over: Option<u64>,
    /// Whether this is the only server of its database.
    pub alone: bool,
}

/// The file of a body, as a row names it: `server/sha256/size`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileName {
    server: String,
    digest: String,
    size: u64,
}

impl std::fmt::Display for FileName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.server, self.digest, self.size)
    }
}

impl FileName {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (server, digest, size) = (parts.next()?, parts.next()?, parts.next()?.parse().ok()?);
        let sound = digest.len() == 64 && digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        (sound && parts.next().is_none()).then(|| Self { server: server.to_owned(), digest: digest.to_owned(), size })
    }
}

/// A body on its way into a row: the bytes for the row, and the name of the file that has them instead.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) bytes: Bytes,
    pub(super) file: Option<String>,
}

impl Placed {
    pub(super) const fn in_row(bytes: Bytes) -> Self {
        Self { bytes, file: None }
    }
}

/// The day that a row with this id belongs to.
pub(super) fn day_of(id: Uuid) -> NaiveDate {
    crate::id::InvocationId::from(id).created_at().unwrap_or_else(clock::now).date_naive()
}

impl Store {
    fn spill(&self) -> Option<&Spill> {
        self.inner.spill.as_ref()
    }

    /// Whether bytes from so many on go to a file.
    pub(super) fn spills(&self, size: u64) -> bool {
        self.spill().and_then(|spill| spill.over).is_some_and(|over| size > over)
    }

    /// Whether no other server works on this database: the payload of queued work may be in a file then, and nobody else is to be told.
    pub(super) fn is_alone(&self) -> bool {
        self.spill().is_some_and(|spill| spill.alone)
    }

    /// The shelf of a row.
    pub(super) fn shelf(&self, id: Uuid, namespace: &str) -> Option<Shelf> {
        Some(Shelf::new(&self.spill()?.dir, day_of(id), namespace))
    }

    /// Puts a body where it belongs: a large one into a file, which is on disk when this returns.
    ///
    /// # Errors
    /// When the file cannot be written: then nothing may be accepted.
    pub(super) async fn place(&self, id: Uuid, namespace: &str, body: &Bytes) -> Result<Placed, StoreError> {
        let size = body.len() as u64;
        let shelf = if self.spills(size) { self.shelf(id, namespace) } else { None };
        let Some(shelf) = shelf else { return Ok(Placed::in_row(body.clone())) };
        let bytes = body.clone();
        let digest = blocking(move || shelf.put(&bytes)).await.map_err(unwritten)?;
        let file = FileName { server: self.inner.server.clone(), digest, size };
        Ok(Placed { bytes: Bytes::new(), file: Some(file.to_string()) })
    }

    /// The body of a row, wherever it is.
    ///
    /// # Errors
    /// When it is a file of another server, or is not there any more.
    pub(super) async fn fetch(
        &self,
        id: Uuid,
        namespace: &str,
        bytes: Vec<u8>,
        file: Option<&str>,
    ) -> Result<Bytes, StoreError> {
        let Some(text) = file else { return Ok(Bytes::from(bytes)) };
        let inconsistent = || super::text::inconsistent("invocations, deliveries", &id, "it names its file wrongly");
        let name = FileName::parse(text).ok_or_else(inconsistent)?;
        let shelf = self.shelf_of(&name.server, id, namespace)?;
        let digest = name.digest.clone();
        let body = blocking(move || shelf.get(&digest)).await;
        body.map(Bytes::from).map_err(|error| StoreError::FileGone { name: name.digest, cause: error })
    }

    /// The shelf of a row that `server` wrote; only that server has it.
    pub(super) fn shelf_of(&self, server: &str, id: Uuid, namespace: &str) -> Result<Shelf, StoreError> {
        let ours = server == self.inner.server;
        let shelf = self.shelf(id, namespace).filter(|_| ours);
        shelf.ok_or_else(|| StoreError::Elsewhere { server: server.to_owned() })
    }
}

/// A file could not be written: as with a database that does not answer, nothing is known to be written, and later it may be.
pub(super) fn unwritten(error: std::io::Error) -> StoreError {
    tracing::warn!(%error, "the files of large bodies cannot be written or looked at");
    StoreError::Down(sqlx::Error::Io(error))
}

/// Runs something that blocks on a thread for that.
pub(super) async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(job).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_read_back_and_lead_nowhere_else() {
        let name = FileName { server: "one.two-3".to_owned(), digest: "a".repeat(64), size: 7 };
        assert_eq!(FileName::parse(&name.to_string()), Some(name));
        for text in ["", "a/b/1", &format!("s/{}/1/2", "a".repeat(64)), &format!("s/../{}/1", "a".repeat(61))] {
            assert_eq!(FileName::parse(text), None, "{text}");
        }
    }
}
