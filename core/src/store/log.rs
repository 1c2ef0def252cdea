//! Output of executions: chunks of two byte streams, each addressed by its offset.

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

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
        let bytes: Vec<&[u8]> = chunks.iter().map(|chunk| chunk.bytes.as_ref()).collect();
        sqlx::query!(
            "INSERT INTO log_chunks (execution, stream, at, namespace, bytes)
             SELECT c.execution, c.stream, c.at, $1, c.bytes
             FROM unnest($2::uuid[], $3::text[], $4::bigint[], $5::bytea[]) AS c (execution, stream, at, bytes)
             ON CONFLICT DO NOTHING",
            namespace.as_str(),
            &executions,
            &streams as &[&str],
            &offsets,
            &bytes as &[&[u8]],
        )
        .execute(self.relaxed())
        .await?;
        Ok(())
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
            "SELECT at, bytes FROM log_chunks
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
        let chunks = rows.into_iter().map(|row| (uncount(row.at), Bytes::from(row.bytes)));
        Ok(join(chunks, offset, limit))
    }
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
