//! Publishing: many messages in one transaction, all or none.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{NewMessage, Published, lock_keys, lock_of};
use crate::clock;
use crate::id::MessageId;
use crate::name::{Namespace, RevisionDigest};
use crate::store::queue::Wakeup;
use crate::store::text::{clean, json};
use crate::store::{Store, StoreError, answered};

/// How long a dedup key is remembered.
pub(super) const REMEMBERED: Duration = Duration::from_secs(300);

/// Longest dedup key that is stored as it is.
const LONGEST: usize = 200;

impl Store {
    /// Publishes messages. When it returns they are on disk. `None`: there is no such queue, and nothing was published.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn publish(
        &self,
        namespace: &Namespace,
        queue: &str,
        messages: &[NewMessage],
    ) -> Result<Option<Vec<Published>>, StoreError> {
        self.publish_remembering(namespace, queue, messages, REMEMBERED).await
    }

    /// The same with another time for which dedup keys are remembered.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn publish_remembering(
        &self,
        namespace: &Namespace,
        queue: &str,
        messages: &[NewMessage],
        remember: Duration,
    ) -> Result<Option<Vec<Published>>, StoreError> {
        answered(async {
            if messages.iter().all(is_plain) {
                return self.publish_plain(namespace, queue, messages).await;
            }
            let mut tx = self.pool().begin().await?;
            if !exists(&mut tx, namespace, queue).await? {
                return Ok(None);
            }
            let published = insert(&mut tx, namespace, queue, messages, remember).await?;
            tx.commit().await?;
            if published.iter().any(|one| !one.repeated) {
                self.tell(Wakeup::Messages(namespace.clone(), queue.to_owned()));
            }
            Ok(Some(published))
        })
        .await
    }
}

impl Store {
    /// Publishes messages of which none depends on another: one statement, which looks for nothing but the queue.
    async fn publish_plain(
        &self,
        namespace: &Namespace,
        queue: &str,
        messages: &[NewMessage],
    ) -> Result<Option<Vec<Published>>, StoreError> {
        let mut columns = Columns::default();
        let published: Vec<Published> =
            messages.iter().map(|_| Published { id: MessageId::new(), repeated: false }).collect();
        for (message, published) in messages.iter().zip(&published) {
            columns.push(published.id, message, None);
        }
        let written = sqlx::query!(
            "INSERT INTO messages (id, namespace, queue, priority, attributes, content_type, body, published_at, ready_at)
             SELECT e.id, q.namespace, q.name, e.priority, e.attributes::jsonb, e.content_type, e.body, $8, now()
             FROM queues q CROSS JOIN unnest($3::uuid[], $4::smallint[], $5::text[], $6::text[], $7::bytea[])
               AS e (id, priority, attributes, content_type, body)
             WHERE q.namespace = $1 AND q.name = $2",
            namespace.as_str(),
            queue,
            &columns.ids,
            &columns.priorities,
            &columns.attributes,
            &columns.content_types as &[Option<String>],
            &columns.bodies as &[&[u8]],
            clock::now(),
        )
        .execute(self.pool())
        .await?;
        if written.rows_affected() == 0 && !exists(&mut *self.pool().acquire().await?, namespace, queue).await? {
            return Ok(None);
        }
        if !published.is_empty() {
            self.tell(Wakeup::Messages(namespace.clone(), queue.to_owned()));
        }
        Ok(Some(published))
    }
}

/// Whether a message is ready as it comes, whatever there was before.
fn is_plain(message: &NewMessage) -> bool {
    message.key.is_none() && message.dedup.is_none() && message.dead.is_none() && message.delay.is_zero()
}

/// Whether there is such a queue.
pub(in crate::store) async fn exists(
    tx: &mut PgConnection,
    namespace: &Namespace,
    queue: &str,
) -> Result<bool, StoreError> {
    let exists = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM queues WHERE namespace = $1 AND name = $2) AS "exists!""#,
        namespace.as_str(),
        queue
    );
    Ok(exists.fetch_one(tx).await?)
}

/// A dedup key as it is stored.
fn stored(key: &str) -> String {
    if key.len() <= LONGEST {
        return clean(key).into_owned();
    }
    RevisionDigest::from_sha256(&Sha256::digest(key).into()).as_str().to_owned()
}

/// Puts messages into a queue that is there.
pub(in crate::store) async fn insert(
    tx: &mut PgConnection,
    namespace: &Namespace,
    queue: &str,
    messages: &[NewMessage],
    remember: Duration,
) -> Result<Vec<Published>, StoreError> {
    let keyed = messages.iter().filter_map(|message| message.key.as_deref());
    lock_keys(tx, keyed.map(|key| lock_of(namespace.as_str(), queue, &clean(key))).collect()).await?;
    let mut first: HashMap<String, MessageId> = HashMap::new();
    let mut columns = Columns::default();
    let mut published = Vec::with_capacity(messages.len());
    for message in messages {
        let id = MessageId::new();
        let dedup = message.dedup.as_deref().map(stored);
        match dedup.as_ref().and_then(|key| first.get(key)) {
            Some(first) => published.push((Published { id: *first, repeated: true }, dedup)),
            None => {
                columns.push(id, message, dedup.clone());
                first.extend(dedup.clone().map(|key| (key, id)));
                published.push((Published { id, repeated: false }, dedup));
            }
        }
    }
    let new = columns.write(tx, namespace, queue, remember).await?;
    let known: Vec<&str> = (published.iter().filter(|(one, _)| !new.contains(&one.id.uuid())))
        .filter_map(|(_, dedup)| dedup.as_deref())
        .collect();
    let known = if known.is_empty() { HashMap::new() } else { holders(tx, namespace, queue, &known).await? };
    let told = published.into_iter().map(|(one, dedup)| match dedup.and_then(|key| known.get(&key).copied()) {
        Some(id) => Published { id, repeated: true },
        None => one,
    });
    Ok(told.collect())
}

/// The messages that dedup keys stand for.
async fn holders(
    tx: &mut PgConnection,
    namespace: &Namespace,
    queue: &str,
    keys: &[&str],
) -> Result<HashMap<String, MessageId>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT key, message AS "message: MessageId" FROM message_dedup WHERE namespace = $1 AND queue = $2 AND key = ANY($3)"#,
        namespace.as_str(),
        queue,
        keys as &[&str],
    );
    Ok(rows.fetch_all(tx).await?.into_iter().map(|row| (row.key, row.message)).collect())
}

/// Messages, column by column.
#[derive(Default)]
struct Columns<'a> {
    ids: Vec<Uuid>,
    priorities: Vec<i16>,
    keys: Vec<Option<String>>,
    attributes: Vec<String>,
    content_types: Vec<Option<String>>,
    bodies: Vec<&'a [u8]>,
    delays: Vec<f64>,
    dedups: Vec<Option<String>>,
    dead: Vec<Option<String>>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, id: MessageId, message: &'a NewMessage, dedup: Option<String>) {
        let text = |text: &Option<String>| text.as_deref().map(|text| clean(text).into_owned());
        self.ids.push(id.uuid());
        self.priorities.push(message.priority.clamp(0, super::PRIORITIES));
        self.keys.push(text(&message.key));
        self.attributes.push(json(&message.attributes));
        self.content_types.push(text(&message.content_type));
        self.bodies.push(&message.body);
        self.delays.push(message.delay.as_secs_f64());
        self.dedups.push(dedup);
        self.dead.push(text(&message.dead));
    }

    async fn write(
        &self,
        tx: &mut PgConnection,
        namespace: &Namespace,
        queue: &str,
        remember: Duration,
    ) -> Result<HashSet<Uuid>, StoreError> {
        let new = sqlx::query_file_scalar!(
            "src/store/message/publish.sql",
            namespace.as_str(),
            queue,
            &self.ids,
            &self.priorities,
            &self.keys as &[Option<String>],
            &self.attributes,
            &self.content_types as &[Option<String>],
            &self.bodies as &[&[u8]],
            &self.delays,
            &self.dedups as &[Option<String>],
            &self.dead as &[Option<String>],
            clock::now(),
            remember.as_secs_f64(),
        );
        Ok(new.fetch_all(tx).await?.into_iter().collect())
    }
}
