//! What follows firing: the next one of those that wait for each other, and ticks that are old.

use super::super::queue::Wakeup;
use super::super::{Store, StoreError};
use crate::clock::Timestamp;

/// Ticks of each trigger that stay on record.
const TICKS_KEPT: i64 = 100;

impl Store {
    /// Lets those start that waited for a run that is over, the oldest one of each trigger. Returns whether any still wait.
    /// Idempotent; any server may do it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn release_held(&self) -> Result<bool, StoreError> {
        let row = sqlx::query!(
            r#"WITH held AS (
                 SELECT DISTINCT ON (q.trigger) q.trigger, q.invocation FROM queue q
                 WHERE q.trigger IS NOT NULL AND q.not_before = 'infinity'
                 ORDER BY q.trigger, q.invocation
               ), freed AS (
                 UPDATE queue q SET not_before = now()
                 FROM held h
                 WHERE q.invocation = h.invocation AND q.not_before = 'infinity'
                   AND NOT EXISTS (SELECT FROM queue o WHERE o.trigger = h.trigger AND o.not_before < 'infinity')
                 RETURNING q.invocation
               ), queued AS (
                 UPDATE invocations i SET state = 'queued'
                 WHERE i.id = ANY(ARRAY(SELECT invocation FROM freed)) AND i.state = 'held'
               )
               SELECT (SELECT count(*) FROM held) AS "held!", (SELECT count(*) FROM freed) AS "freed!""#
        )
        .fetch_one(self.pool())
        .await?;
        if row.freed > 0 {
            self.tell(Wakeup::Work);
        }
        Ok(row.held > 0)
    }

    /// Forgets ticks beyond the last hundred of each trigger, those of triggers that are gone, and those that a wrong clock made.
    /// What is decided stays so: the cursors know. Idempotent; any server may do it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn prune_ticks(&self, now: Timestamp) -> Result<u64, StoreError> {
        let old = sqlx::query!(
            "DELETE FROM cron_ticks t USING cron_schedules s CROSS JOIN LATERAL (
                 SELECT k.fires_at FROM cron_ticks k WHERE k.namespace = s.namespace AND k.trigger = s.trigger
                 ORDER BY k.fires_at DESC OFFSET $1 LIMIT 1
             ) AS last
             WHERE t.namespace = s.namespace AND t.trigger = s.trigger AND t.fires_at <= last.fires_at",
            TICKS_KEPT,
        )
        .execute(self.pool())
        .await?;
        let stray = sqlx::query!(
            "DELETE FROM cron_ticks t
             WHERE t.fires_at > $1::timestamptz + interval '1 day' OR NOT EXISTS (SELECT FROM cron_schedules s WHERE s.trigger = t.trigger)",
            now,
        )
        .execute(self.pool())
        .await?;
        Ok(old.rows_affected() + stray.rows_affected())
    }
}
