//! Output of executions: chunks of two byte streams, each addressed by its offset. What a stream writes beyond the bound of
//! [`super::Spill`] stands in a file of the stream; the rows then say which bytes of it.

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use super::spill::{blocking, unwritten};
use super::text::{count, uncount};
use super::{Store, StoreError};
use crate::engine::Stream;
use crate::id::ExecutionId;
use crate::name::Namespace;

/// A piece of output to put on record.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// Of which execution.
    pub execution: ExecutionId,
    /// Which stream.
    pub stream: Stream,
    /// Offset of its first byte in the stream.
    pub offset: u64,
    /// The bytes.
    pub bytes: Bytes,
}

impl Store {
    /// Puts chunks on record. Not durable by itself (`synchronous_commit = off`); the end of the execution is, and comes later.
    /// A chunk that is there already (same execution, stream and offset) is passed over.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn append_logs(&self, namespace: &Namespace, chunks: &[Chunk]) -> Result<(), StoreError> {
        let chunks: Vec<&Chunk> = chunks.iter().filter(|chunk| !chunk.bytes.is_empty()).collect();
        if chunks.is_empty() {
            return Ok(());
        }
        let executions: Vec<Uuid> = chunks.iter().map(|chunk| chunk.execution.uuid()).collect();
        let streams: Vec<&str> = chunks.iter().map(|chunk| chunk.stream.as_str()).collect();
        let offsets: Vec<i64> = chunks.iter().map(|chunk| count(chunk.offset)).collect();
        let mut bytes: Vec<&[u8]> = Vec::with_capacity(chunks.len());
        let mut servers: Vec<Option<&str>> = Vec::with_capacity(chunks.len());
        let mut lengths: Vec<Option<i64>> = Vec::with_capacity(chunks.len());
        for chunk in &chunks {
            let spilled = self.spill_chunk(namespace, chunk).await?;
            bytes.push(if spilled { &[] } else { chunk.bytes.as_ref() });
            servers.push(spilled.then_some(self.inner.server.as_str()));
            lengths.push(spilled.then_some(count(chunk.bytes.len() as u64)));
        }
        sqlx::query!(
            "INSERT INTO log_chunks (execution, stream, at, namespace, bytes, server, length)
             SELECT c.execution, c.stream, c.at, $1, c.bytes, c.server, c.length
             FROM unnest($2::uuid[], $3::text[], $4::bigint[], $5::bytea[], $6::text[], $7::bigint[])
               AS c (execution, stream, at, bytes, server, length)
             ON CONFLICT DO NOTHING",
            namespace.as_str(),
            &executions,
            &streams as &[&str],
            &offsets,
            &bytes as &[&[u8]],
            &servers as &[Option<&str>],
            &lengths as &[Option<i64>],
        )
        .execute(self.relaxed())
        .await?;
        Ok(())
    }

    /// Puts a chunk into the file of its stream, if it lies beyond the bound; returns whether it is there now.
    async fn spill_chunk(&self, namespace: &Namespace, chunk: &Chunk) -> Result<bool, StoreError> {
        let shelf = self.shelf(chunk.execution.uuid(), namespace.as_str());
        let Some(shelf) = shelf.filter(|_| self.spills(chunk.offset + chunk.bytes.len() as u64)) else {
            return Ok(false);
        };
        let (name, offset, bytes) = (file_name(chunk.execution, chunk.stream), chunk.offset, chunk.bytes.clone());
        blocking(move || shelf.write_output(&name, offset, &bytes)).await.map_err(unwritten)?;
        Ok(true)
    }

    /// Up to `limit` bytes of a stream from byte `offset` on; empty where nothing is there (yet).
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn read_logs(
        &self,
        namespace: &Namespace,
        execution: ExecutionId,
        stream: Stream,
        offset: u64,
        limit: usize,
    ) -> Result<Bytes, StoreError> {
        self.settled().await;
        let end = offset.saturating_add(u64::try_from(limit).unwrap_or(u64::MAX));
        // The chunk that holds the first byte begins at or before it; those that follow begin before the end.
        let rows = sqlx::query!(
            "SELECT at, bytes, server, length FROM log_chunks
             WHERE namespace = $1 AND execution = $2 AND stream = $3 AND at < $5 AND at >= COALESCE(
                (SELECT max(at) FROM log_chunks WHERE execution = $2 AND stream = $3 AND at <= $4), $4)
             ORDER BY at",
            namespace.as_str(),
            execution.uuid(),
            stream.as_str(),
            count(offset),
            count(end),
        )
        .fetch_all(self.pool())
        .await?;
        let mut chunks = Vec::with_capacity(rows.len());
        for row in rows {
            let at = uncount(row.at);
            let bytes = match (row.server, row.length) {
                (Some(server), Some(length)) => {
                    let shelf = self.shelf_of(&server, execution.uuid(), namespace.as_str())?;
                    let (name, length) = (file_name(execution, stream), usize::try_from(length).unwrap_or(0));
                    let file = name.clone();
                    let read = blocking(move || shelf.read_output(&file, at, length)).await;
                    read.map_err(|cause| StoreError::FileGone { name, cause })?
                }
                _ => row.bytes,
            };
            chunks.push((at, Bytes::from(bytes)));
        }
        Ok(join(chunks.into_iter(), offset, limit))
    }
}

/// The file of a stream.
fn file_name(execution: ExecutionId, stream: Stream) -> String {
    format!("{execution}.{}", stream.as_str())
}

/// The bytes from `offset` on, up to the first gap.
fn join(chunks: impl Iterator<Item = (u64, Bytes)>, offset: u64, limit: usize) -> Bytes {
    let mut out = BytesMut::new();
    let mut next = offset;
    for (at, bytes) in chunks {
        let Some(skip) = next.checked_sub(at).and_then(|skip| usize::try_from(skip).ok()) else { break };
        let Some(fresh) = bytes.get(skip..) else { continue };
        let fresh = &fresh[..fresh.len().min(limit - out.len())];
        out.extend_from_slice(fresh);
        next += fresh.len() as u64;
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_window_of_any_cut_is_the_text(text in proptest::collection::vec(any::<u8>(), 0..64), cuts in
            proptest::collection::vec(1_usize..9, 0..20), offset in 0_usize..70, limit in 0_usize..70) {
            let mut chunks = Vec::new();
            let mut at = 0;
            for cut in cuts.iter().copied().chain([64]) {
                let end = (at + cut).min(text.len());
                chunks.push((at as u64, Bytes::copy_from_slice(&text[at..end])));
                at = end;
            }
            let want = &text[offset.min(text.len())..(offset + limit).min(text.len()).max(offset.min(text.len()))];
            prop_assert_eq!(&join(chunks.into_iter(), offset as u64, limit)[..], want);
        }
    }

    #[test]
    fn a_gap_ends_the_piece_and_an_overlap_does_not_repeat() {
        let b = |text: &'static str| Bytes::from_static(text.as_bytes());
        assert_eq!(join([(0, b("ab")), (3, b("d"))].into_iter(), 0, 9), b("ab"));
        assert_eq!(join([(0, b("abc")), (1, b("bcd"))].into_iter(), 0, 9), b("abcd"));
        assert_eq!(join([(2, b("c"))].into_iter(), 0, 9), b(""));
    }
}
