//! Messages of named queues.
//!
//! ```text
//!            ┌─► behind (an earlier one of its key lives) ─┐
//!  publish ──┼─► delayed ──────────────────────────────────┼─► ready ──take──► in flight ──settle──► gone
//!            └─────────────────────────────────────────────┘     ▲                 │
//!                                                                └──── delayed ◄───┼──► dead letter ──redrive──► ready
//! ```
//! A message in flight belongs to an invocation, which the queue of live work runs like any other: claimed under a lease with a
//! heartbeat, run again when its server is lost. Its end decides about its messages.
//!
//! *Order.* Only the first message of a key is anything but `behind`. Whoever adds to a key or takes away its first one holds one of a
//! few locks by the key ([`lock_keys`]), so that each sees what the other did.

mod admin;
pub(super) mod deploy;
mod depth;
mod publish;
mod settle;
mod state;
mod take;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;

use super::StoreError;
use super::queue::Wakeup;
use super::queue::news::notify;
use crate::clock::Timestamp;
use crate::id::{InvocationId, MessageId};
use crate::name::Namespace;

pub(super) use publish::{exists, insert};

pub use admin::{Redrive, Which};
pub use depth::{Depth, QueueRecord};
pub(in crate::store) use settle::may_report_failures;
pub use settle::{Ended, Fate};
pub use state::{BrokerState, BrokerWord};
pub use take::{Batch, Candidate, Choice, Consumer, Free, Hints, Taken};

/// Highest priority; 0 is normal.
pub const PRIORITIES: i16 = 9;

/// A queue, by owner and name.
pub type QueueKey = (Namespace, String);

/// Attribute of a message of which only the beginning is here; its value is the size of the whole, bytes.
pub const CUT: &str = "runlet.cut";

/// A message to publish.
#[derive(Debug, Clone, Default)]
pub struct NewMessage {
    /// The body, as it came.
    pub body: Bytes,
    /// Its content type.
    pub content_type: Option<String>,
    /// Texts by name.
    pub attributes: BTreeMap<String, String>,
    /// Messages with the same key go one at a time, in order.
    pub key: Option<String>,
    /// A repeat of this key is no new message while the key is remembered.
    pub dedup: Option<String>,
    /// From 0 to [`PRIORITIES`]; higher first.
    pub priority: i16,
    /// Not ready before so long has passed.
    pub delay: Duration,
    /// It is a dead letter from the start, for this reason: it came from a broker and nobody can deal with it.
    pub dead: Option<String>,
}

/// What became of a message that was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Published {
    /// The message: a new one, or the one that had the dedup key first.
    pub id: MessageId,
    /// Whether the dedup key was known, so that nothing new was published.
    pub repeated: bool,
}

/// Where a message is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MessageState {
    /// It can be taken.
    Ready,
    /// It gets ready later: it was published so, or it failed and is tried again.
    Delayed,
    /// An earlier message of its key is not dealt with.
    Behind,
    /// An invocation deals with it.
    InFlight,
    /// A dead letter.
    Dead,
}

impl MessageState {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Ready, Self::Delayed, Self::Behind, Self::InFlight, Self::Dead];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Delayed => "delayed",
            Self::Behind => "behind",
            Self::InFlight => "in_flight",
            Self::Dead => "dead",
        }
    }
}

/// A message as people look at it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MessageRecord {
    /// Its id.
    pub id: MessageId,
    /// Where it is on its way.
    pub state: MessageState,
    /// Higher first.
    pub priority: i16,
    /// Messages with the same key go one at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What the publisher says about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// Content type of the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Size of the body, bytes.
    pub size: u64,
    /// The body as text, at most 4 KiB of it; bytes that are no UTF-8 are U+FFFD.
    pub body: String,
    /// When it was published.
    #[schema(value_type = String, format = DateTime)]
    pub published_at: Timestamp,
    /// Invocations it was in that failed.
    pub attempts: u32,
    /// delayed: when it gets ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub due: Option<Timestamp>,
    /// in flight: the invocation that deals with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation: Option<InvocationId>,
    /// dead: since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub dead_at: Option<Timestamp>,
    /// Why it failed the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Locks that stand for keys; few, for a transaction may want many keys.
const LOCKS: u32 = 128;

/// What the locks of keys are called among the advisory locks of the database.
const LOCK_CLASS: i32 = 0x6d73_6773;

/// The lock that stands for a key. Servers of all versions must agree on it.
fn lock_of(namespace: &str, queue: &str, key: &str) -> i32 {
    let mut hash = crc32fast::Hasher::new();
    for part in [namespace, queue, key] {
        hash.update(part.as_bytes());
        hash.update(&[0]);
    }
    i32::try_from(hash.finalize() % LOCKS).unwrap_or(0)
}

/// Takes locks until the end of the transaction, in one order for everybody.
async fn lock_keys(tx: &mut PgConnection, mut locks: Vec<i32>) -> Result<(), StoreError> {
    locks.sort_unstable();
    locks.dedup();
    if !locks.is_empty() {
        sqlx::query_scalar!(
            "SELECT pg_advisory_xact_lock($1, l) IS NULL AS locked FROM unnest($2::integer[]) WITH ORDINALITY AS k (l, n) ORDER BY n",
            LOCK_CLASS,
            &locks,
        )
        .fetch_all(tx)
        .await?;
    }
    Ok(())
}

/// Tells all servers that there is something to take.
async fn tell(tx: &mut PgConnection, (namespace, queue): (&Namespace, &str)) -> Result<(), StoreError> {
    notify(tx, [Wakeup::Messages(namespace.clone(), queue.to_owned())]).await
}

/// Lets the first of those that are behind go, of each of these keys whose first one is gone.
async fn promote(tx: &mut PgConnection, keys: &[(&Namespace, &str, &str)]) -> Result<(), StoreError> {
    if keys.is_empty() {
        return Ok(());
    }
    let namespaces: Vec<&str> = keys.iter().map(|(namespace, ..)| namespace.as_str()).collect();
    let queues: Vec<&str> = keys.iter().map(|(_, queue, _)| *queue).collect();
    let keys: Vec<&str> = keys.iter().map(|(.., key)| *key).collect();
    sqlx::query!(
        "UPDATE messages m SET behind = false, place = nextval('message_places'), ready_at = greatest(now(), m.due)
         WHERE m.id = ANY(ARRAY(
             SELECT first.id
             FROM (SELECT DISTINCT * FROM unnest($1::text[], $2::text[], $3::text[]) AS u (namespace, queue, key)) k
             CROSS JOIN LATERAL (
                 SELECT b.id, b.behind FROM messages b
                 WHERE b.namespace = k.namespace AND b.queue = k.queue AND b.key = k.key AND b.dead_at IS NULL AND b.behind
                 ORDER BY b.place LIMIT 1
             ) first
             WHERE NOT EXISTS (SELECT FROM messages o
                 WHERE o.namespace = k.namespace AND o.queue = k.queue AND o.key = k.key AND o.dead_at IS NULL AND NOT o.behind)))",
        &namespaces as &[&str],
        &queues as &[&str],
        &keys as &[&str],
    )
    .execute(tx)
    .await?;
    Ok(())
}
