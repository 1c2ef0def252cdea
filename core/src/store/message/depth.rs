//! How full queues are.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::Timestamp;
use crate::name::{FunctionName, Namespace};
use crate::store::cron::Paused;
use crate::store::text::uncount;
use crate::store::{Store, StoreError};

/// How many messages a queue has, by where they are on their way.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct Depth {
    /// They can be taken.
    pub ready: u64,
    /// They get ready later.
    pub delayed: u64,
    /// An earlier one of their key is not dealt with.
    pub behind: u64,
    /// An invocation deals with them.
    pub in_flight: u64,
    /// Dead letters.
    pub dead: u64,
    /// For how many seconds the oldest one has been ready; 0 if none is.
    pub oldest_seconds: f64,
}

/// A queue.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct QueueRecord {
    /// Its name; with dots in it: what a trigger takes from a broker.
    pub name: String,
    /// What is in it.
    pub depth: Depth,
    /// The functions that take from it.
    pub functions: Vec<FunctionName>,
    /// Since when and why it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

struct Row {
    namespace: Namespace,
    name: String,
    created_at: Timestamp,
    paused_at: Option<Timestamp>,
    note: Option<String>,
    functions: Vec<String>,
    ready: i64,
    delayed: i64,
    behind: i64,
    in_flight: i64,
    dead: i64,
    oldest: f64,
}

impl Row {
    fn record(self) -> (Namespace, QueueRecord) {
        let depth = Depth {
            ready: uncount(self.ready),
            delayed: uncount(self.delayed),
            behind: uncount(self.behind),
            in_flight: uncount(self.in_flight),
            dead: uncount(self.dead),
            oldest_seconds: self.oldest.max(0.0),
        };
        let functions = self.functions.into_iter().filter_map(|name| FunctionName::new(name).ok()).collect();
        let paused = self.paused_at.map(|at| Paused { at, note: self.note });
        (self.namespace, QueueRecord { name: self.name, depth, functions, paused, created_at: self.created_at })
    }
}

impl Store {
    /// Up to `limit` queues behind `after`, by name, with what is in them: of a namespace, or of all; one, where that is named.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn queues(
        &self,
        namespace: Option<&Namespace>,
        one: Option<&str>,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Vec<(Namespace, QueueRecord)>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT q.namespace AS "namespace: Namespace", q.name, q.created_at, q.paused_at, q.note,
                   ARRAY(SELECT DISTINCT t.function FROM triggers t
                     WHERE t.namespace = q.namespace AND t.path = q.name AND t.kind = 'queue' ORDER BY 1) AS "functions!",
                   d.ready AS "ready!", d.delayed AS "delayed!", d.behind AS "behind!", d.in_flight AS "in_flight!", d.dead AS "dead!",
                   d.oldest AS "oldest!"
               FROM (
                 SELECT * FROM queues k WHERE ($1::text IS NULL OR k.namespace = $1) AND ($2::text IS NULL OR k.name = $2)
                   AND ($3::text IS NULL OR k.name > $3)
                 ORDER BY k.name LIMIT $4
               ) q
               CROSS JOIN LATERAL (
                 SELECT count(*) FILTER (WHERE m.due IS NULL AND NOT m.behind AND m.invocation IS NULL AND m.dead_at IS NULL) AS ready,
                   count(*) FILTER (WHERE m.due IS NOT NULL AND NOT m.behind AND m.dead_at IS NULL) AS delayed,
                   count(*) FILTER (WHERE m.behind) AS behind,
                   count(*) FILTER (WHERE m.invocation IS NOT NULL) AS in_flight,
                   count(*) FILTER (WHERE m.dead_at IS NOT NULL) AS dead,
                   COALESCE(EXTRACT(EPOCH FROM now() - min(m.ready_at)
                     FILTER (WHERE m.due IS NULL AND NOT m.behind AND m.invocation IS NULL AND m.dead_at IS NULL)), 0)::float8 AS oldest
                 FROM messages m WHERE m.namespace = q.namespace AND m.queue = q.name
               ) d
               ORDER BY q.namespace, q.name"#,
            namespace.map(Namespace::as_str),
            one,
            after,
            limit.max(0),
        )
        .fetch_all(self.pool())
        .await?;
        Ok(rows.into_iter().map(Row::record).collect())
    }
}
