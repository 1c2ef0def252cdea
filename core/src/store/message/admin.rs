//! What people do with queues: look into them, pause, purge, redrive, remove.

use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{CUT, LOCKS, MessageRecord, MessageState, lock_keys, promote, tell};
use crate::clock::Timestamp;
use crate::id::{InvocationId, MessageId};
use crate::name::Namespace;
use crate::store::text::{clean, noun, uncount, word};
use crate::store::{Store, StoreError};

/// Which messages a purge takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All that wait: ready, delayed and behind.
    Waiting,
    /// Dead letters.
    Dead,
}

/// Which dead letters go back.
#[derive(Debug, Clone)]
pub enum Redrive {
    /// These.
    These(Vec<MessageId>),
    /// The oldest ones, at most so many.
    Oldest(u32),
}

struct Row {
    id: MessageId,
    state: String,
    priority: i16,
    key: Option<String>,
    attributes: Value,
    content_type: Option<String>,
    size: i64,
    head: Vec<u8>,
    published_at: Timestamp,
    attempts: i32,
    due: Option<Timestamp>,
    invocation: Option<InvocationId>,
    dead_at: Option<Timestamp>,
    reason: Option<String>,
}

impl Row {
    fn record(self) -> Result<MessageRecord, StoreError> {
        let state: MessageState = word("messages", &self.id, &self.state)?;
        let attributes: BTreeMap<String, String> = noun("messages", &self.id, self.attributes)?;
        Ok(MessageRecord {
            id: self.id,
            state,
            priority: self.priority,
            key: self.key,
            attributes,
            content_type: self.content_type,
            size: uncount(self.size),
            body: String::from_utf8_lossy(&self.head).into_owned(),
            published_at: self.published_at,
            attempts: self.attempts.unsigned_abs(),
            due: self.due,
            invocation: self.invocation,
            dead_at: self.dead_at,
            reason: self.reason,
        })
    }
}

impl Store {
    /// Up to `limit` messages of a queue behind `after`, by id; of one state where that is given. Nothing is taken by looking.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn messages(
        &self,
        namespace: &Namespace,
        queue: &str,
        state: Option<MessageState>,
        after: Option<MessageId>,
        limit: i64,
    ) -> Result<Vec<MessageRecord>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT * FROM (
                 SELECT m.id AS "id: MessageId", CASE WHEN m.dead_at IS NOT NULL THEN 'dead' WHEN m.invocation IS NOT NULL THEN 'in_flight'
                     WHEN m.behind THEN 'behind' WHEN m.due IS NOT NULL THEN 'delayed' ELSE 'ready' END AS "state!",
                   m.priority, m.key, m.attributes, m.content_type, octet_length(m.body)::bigint AS "size!",
                   substr(m.body, 1, 4096) AS "head!", m.published_at, m.attempts, m.due, m.invocation AS "invocation: InvocationId",
                   m.dead_at, m.reason
                 FROM messages m WHERE m.namespace = $1 AND m.queue = $2 AND ($4::uuid IS NULL OR m.id > $4)) m
               WHERE $3::text IS NULL OR m."state!" = $3
               ORDER BY m."id: MessageId" LIMIT $5"#,
            namespace.as_str(),
            queue,
            state.map(MessageState::as_str),
            after.map(MessageId::uuid),
            limit.max(0),
        )
        .fetch_all(self.pool())
        .await?;
        rows.into_iter().map(Row::record).collect()
    }

    /// Pauses a queue, with a note, or lets it go on: nothing is taken from a paused one; what is in flight goes on. `false`: there is
    /// no such queue.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn pause_queue(
        &self,
        namespace: &Namespace,
        queue: &str,
        paused: Option<(Timestamp, Option<&str>)>,
    ) -> Result<bool, StoreError> {
        let (at, note) = (paused.map(|(at, _)| at), paused.and_then(|(_, note)| note).map(clean));
        let mut tx = self.pool().begin().await?;
        let done = sqlx::query!(
            "UPDATE queues SET paused_at = CASE WHEN $3::timestamptz IS NULL THEN NULL ELSE COALESCE(paused_at, $3) END, note = $4
             WHERE namespace = $1 AND name = $2",
            namespace.as_str(),
            queue,
            at,
            note.as_deref(),
        )
        .execute(&mut *tx)
        .await?;
        tell(&mut tx, (namespace, queue)).await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Removes messages for good; those in flight stay. Returns how many; `None`: there is no such queue.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn purge_queue(
        &self,
        namespace: &Namespace,
        queue: &str,
        which: Which,
    ) -> Result<Option<u64>, StoreError> {
        let mut tx = self.pool().begin().await?;
        if !lock_queue(&mut tx, namespace, queue).await? {
            return Ok(None);
        }
        let done = sqlx::query!(
            "DELETE FROM messages WHERE namespace = $1 AND queue = $2 AND invocation IS NULL AND (dead_at IS NOT NULL) = $3",
            namespace.as_str(),
            queue,
            which == Which::Dead,
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Some(done.rows_affected()))
    }

    /// Removes a queue that holds nothing and that no trigger takes from.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it does or one does; when the database does not answer.
    pub async fn remove_queue(&self, namespace: &Namespace, queue: &str) -> Result<bool, StoreError> {
        let mut tx = self.pool().begin().await?;
        if !lock_queue(&mut tx, namespace, queue).await? {
            return Ok(false);
        }
        let row = sqlx::query!(
            r#"SELECT EXISTS (SELECT FROM messages WHERE namespace = $1 AND queue = $2) AS "messages!",
                   (SELECT min(function) FROM triggers WHERE namespace = $1 AND path = $2 AND kind = 'queue') AS function"#,
            namespace.as_str(),
            queue,
        )
        .fetch_one(&mut *tx)
        .await?;
        if let Some(function) = row.function {
            let why = format!("function `{function}` takes from queue `{queue}`; take its trigger out first");
            return Err(StoreError::Conflict(why));
        }
        if row.messages {
            return Err(StoreError::Conflict(format!(
                "queue `{queue}` is not empty; purge it first, its dead letters, too"
            )));
        }
        sqlx::query!("DELETE FROM queues WHERE namespace = $1 AND name = $2", namespace.as_str(), queue)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Lets dead letters go again, from their first attempt on; those of which only the beginning is here stay. Returns how many;
    /// `None`: there is no such queue.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when only such are named; when the database does not answer.
    pub async fn redrive(
        &self,
        namespace: &Namespace,
        queue: &str,
        which: &Redrive,
    ) -> Result<Option<u64>, StoreError> {
        let mut tx = self.pool().begin().await?;
        if !lock_queue(&mut tx, namespace, queue).await? {
            return Ok(None);
        }
        let (these, limit): (Option<Vec<Uuid>>, i64) = match which {
            Redrive::These(ids) => (Some(ids.iter().map(|id| id.uuid()).collect()), i64::MAX),
            Redrive::Oldest(limit) => (None, i64::from(*limit)),
        };
        let rows = sqlx::query!(
            r#"UPDATE messages m
               SET dead_at = NULL, trigger = NULL, attempts = 0, due = NULL, ready_at = now(), place = nextval('message_places'),
                   behind = m.key IS NOT NULL
               WHERE m.id = ANY(ARRAY(
                   SELECT d.id FROM messages d
                   WHERE d.namespace = $1 AND d.queue = $2 AND d.dead_at IS NOT NULL AND ($3::uuid[] IS NULL OR d.id = ANY($3))
                     AND NOT d.attributes ? $5
                   ORDER BY d.id LIMIT $4 FOR UPDATE))
               RETURNING m.key"#,
            namespace.as_str(),
            queue,
            these.as_deref(),
            limit,
            CUT,
        )
        .fetch_all(&mut *tx)
        .await?;
        if let (true, Some(these)) = (rows.is_empty(), &these) {
            refuse_cut(&mut tx, namespace, these).await?;
        }
        let keys: Vec<(&Namespace, &str, &str)> =
            rows.iter().filter_map(|row| Some((namespace, queue, row.key.as_deref()?))).collect();
        promote(&mut tx, &keys).await?;
        tell(&mut tx, (namespace, queue)).await?;
        tx.commit().await?;
        Ok(Some(rows.len() as u64))
    }
}

/// Says why none of these go again, if that is because only their beginning is here.
async fn refuse_cut(tx: &mut PgConnection, namespace: &Namespace, these: &[Uuid]) -> Result<(), StoreError> {
    let size = sqlx::query_scalar!(
        r#"SELECT attributes ->> $3 AS "size!" FROM messages WHERE namespace = $1 AND id = ANY($2) AND attributes ? $3 LIMIT 1"#,
        namespace.as_str(),
        these,
        CUT,
    );
    match size.fetch_optional(tx).await? {
        None => Ok(()),
        Some(size) => Err(StoreError::Conflict(format!(
            "only the beginning of this message is here, the whole had {size} bytes: send it again, in pieces or by reference"
        ))),
    }
}

/// Keeps everybody else from adding to and taking from a queue and its keys until the end of the transaction. `false`: there is none.
async fn lock_queue(tx: &mut PgConnection, namespace: &Namespace, queue: &str) -> Result<bool, StoreError> {
    let found = sqlx::query_scalar!(
        "SELECT name FROM queues WHERE namespace = $1 AND name = $2 FOR NO KEY UPDATE",
        namespace.as_str(),
        queue
    );
    if found.fetch_optional(&mut *tx).await?.is_none() {
        return Ok(false);
    }
    lock_keys(tx, (0..LOCKS).filter_map(|lock| i32::try_from(lock).ok()).collect()).await?;
    Ok(true)
}
