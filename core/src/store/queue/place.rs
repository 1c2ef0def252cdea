//! Where a piece of work stands that nobody has claimed.

use crate::clock::Timestamp;
use crate::id::InvocationId;
use crate::store::text::uncount;
use crate::store::{Store, StoreError};

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Not to be claimed before this moment.
    pub not_before: Timestamp,
    /// Whether that moment has come.
    pub due: bool,
    /// Not to be started after this moment.
    pub deadline: Option<Timestamp>,
    /// How many of the same function are claimed before it.
    pub ahead: u64,
}

impl Store {
    /// Where an invocation stands in the queue; `None` if it does not wait there.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn place_in_queue(&self, id: InvocationId) -> Result<Option<Place>, StoreError> {
        let row = sqlx::query!(
            r#"SELECT q.not_before, q.not_before <= now() AS "due!", q.deadline,
                   (SELECT count(*) FROM queue o
                    WHERE o.namespace = q.namespace AND o.function = q.function AND o.lease_until IS NULL
                      AND (o.priority > q.priority
                        OR o.priority = q.priority AND (o.not_before, o.invocation) < (q.not_before, q.invocation))) AS "ahead!"
               FROM queue q WHERE q.invocation = $1 AND q.lease_until IS NULL"#,
            id.uuid(),
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(row.map(|row| Place {
            not_before: row.not_before,
            due: row.due,
            deadline: row.deadline,
            ahead: uncount(row.ahead),
        }))
    }
}
