//! Day partitions: made ahead of time.

use super::{Store, StoreError};
use crate::clock::Timestamp;

impl Store {
    /// Makes the partitions of yesterday, today and the coming seven days where they are missing. Idempotent, safe on many servers at once.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn make_partitions(&self, now: Timestamp) -> Result<(), StoreError> {
        todo!()
    }
}
