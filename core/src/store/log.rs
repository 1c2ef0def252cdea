//! Output of executions: chunks of two byte streams, each addressed by its offset.

use bytes::Bytes;

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
        todo!()
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
        todo!()
    }
}
