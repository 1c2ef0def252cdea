//! The queue: live asynchronous work. Rows leave it when their invocation is terminal.
//!
//! ```text
//!  accept ──► waiting ──claim──► claimed ──finish──► gone
//!     │          ▲                  │ ▲
//!     └──────────┼─── at once ──────┼─┘
//!                └── lease is over, or the execution was lost, and `on_lost = "retry"`
//! ```
//! Every transaction that touches a row of the queue locks that row first, and only then the invocation and the execution.

pub mod at_once;
pub(super) mod cancel;
mod claim;
pub(super) mod floors;
mod lost;
pub(super) mod news;
pub mod place;
pub(super) mod sweep;
pub(super) mod wakeup;

pub use claim::Claims;
pub use wakeup::{Wakeup, Wakeups};

use std::collections::HashMap;

use bytes::Bytes;
use uuid::Uuid;

use super::{Store, StoreError, answered};
use crate::cause::Cause;
use crate::clock::Timestamp;
use crate::id::{ExecutionId, InvocationId};
use crate::name::{FunctionName, Namespace, RevisionDigest};

/// Most executions of an invocation whose executions get lost: whatever kills its server again and again is put aside.
pub const MAX_LOST: i32 = 5;

/// Channel of all notifications.
const CHANNEL: &str = "runlet";

/// What a server could start now: the bound of a claim.
#[derive(Debug, Clone, Default)]
pub struct Room {
    /// Executions, of all functions together.
    pub executions: u32,
    /// Memory for them, bytes.
    pub memory: u64,
    /// Memory of all sandboxes of the server, bytes. Work that needs more can never start there: it takes none, for it is
    /// claimed only to be told so.
    pub total_memory: u64,
    /// The best work may be claimed even if the memory does not suffice for it, so that it gets in line for it.
    pub in_line: bool,
    /// Turns of functions that are taken on this server, each function once; of those that are not named, none are. Less than none are where
    /// more work can start in the time of a claim than there are turns.
    pub used: Vec<((Namespace, FunctionName), i32)>,
    /// How many pieces more than others of its namespace a function has had; of those that are not named: none.
    pub functions_ahead: HashMap<(Namespace, FunctionName), f64>,
    /// How many pieces more than others a namespace has had, and its weight; of those that are not named: none, and 1.
    pub namespaces: Vec<(Namespace, f64, f64)>,
}

/// Claimed work. That it has begun is on record in the queue alone, until it ends or is noted.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The invocation.
    pub invocation: InvocationId,
    /// The execution that is to be made of it.
    pub execution: ExecutionId,
    /// Owner.
    pub namespace: Namespace,
    /// The function.
    pub function: FunctionName,
    /// The revision to run.
    pub revision: RevisionDigest,
    /// Why.
    pub cause: Cause,
    /// The raw body; an error where its file is not there: the work cannot be done then.
    pub payload: Result<Bytes, String>,
    /// Content type of the body.
    pub content_type: Option<String>,
    /// 1 for the first.
    pub attempt: u32,
    /// Goes with every later write about this claim.
    pub fence: i64,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// From when on it could be claimed.
    pub due_at: Timestamp,
    /// Higher first; 0 is normal.
    pub priority: i16,
    /// Not after this moment may it start; `None`: no such bound.
    pub deadline: Option<Timestamp>,
}

/// A claim that was found dead.
#[derive(Debug, Clone)]
pub struct Expired {
    /// The invocation.
    pub invocation: InvocationId,
    /// The execution that was lost.
    pub execution: ExecutionId,
    /// Whether it was queued again.
    pub retried: bool,
}

/// The least id that is made at `moment`.
fn first_id(moment: Timestamp) -> Uuid {
    let millis = u128::try_from(moment.timestamp_millis()).unwrap_or_default();
    Uuid::from_u128(millis << 80)
}

impl Store {
    /// How many pieces of work wait, and how many are claimed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn queue_depth(&self) -> Result<(i64, i64), StoreError> {
        let row = sqlx::query!(
            r#"SELECT count(*) FILTER (WHERE lease_until IS NULL) AS "waiting!",
                   count(*) FILTER (WHERE lease_until IS NOT NULL) AS "claimed!" FROM queue"#
        )
        .fetch_one(self.pool())
        .await?;
        Ok((row.waiting, row.claimed))
    }

    /// For how many seconds the oldest piece of work that waits has been due; 0 if none is.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn queue_age(&self) -> Result<f64, StoreError> {
        let age = sqlx::query_scalar!(
            r#"SELECT COALESCE(EXTRACT(EPOCH FROM now() - min(not_before)), 0)::double precision AS "age!"
               FROM queue WHERE lease_until IS NULL AND not_before <= now()"#
        )
        .fetch_one(self.pool())
        .await?;
        Ok(age)
    }

    /// Pieces of work that wait in a namespace: the bound for accepting more.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn waiting_in(&self, namespace: &Namespace) -> Result<i64, StoreError> {
        let asked = sqlx::query_scalar!(
            r#"SELECT count(*) AS "waiting!" FROM queue WHERE namespace = $1 AND lease_until IS NULL"#,
            namespace.as_str(),
        )
        .fetch_one(self.pool());
        answered(async { Ok(asked.await?) }).await
    }
}
