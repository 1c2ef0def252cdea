//! How servers get on with the brokers of queue triggers: for people to see.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::Timestamp;
use crate::id::TriggerId;
use crate::store::text::clean;
use crate::store::{Store, StoreError};

/// How it is, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BrokerWord {
    /// A connection is being made.
    Connecting,
    /// Messages come.
    On,
    /// Nothing comes: the error says why. It is tried again.
    Failing,
    /// As many messages wait here as may: the broker keeps the rest.
    Full,
}

impl BrokerWord {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::On => "on",
            Self::Failing => "failing",
            Self::Full => "full",
        }
    }
}

/// How a trigger gets on with its broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BrokerState {
    /// How it is.
    pub state: BrokerWord,
    /// What went wrong last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Since when it is so.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
}

impl Store {
    /// Puts on record how this server gets on with the broker of a trigger. One that is gone has none.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn note_broker(
        &self,
        trigger: TriggerId,
        state: BrokerWord,
        error: Option<&str>,
    ) -> Result<(), StoreError> {
        let error = error.map(clean);
        sqlx::query!(
            "INSERT INTO broker_states AS s (namespace, trigger, server, state, error, since, seen_at)
             SELECT namespace, id, $2, $3, $4, now(), now() FROM triggers WHERE id = $1
             ON CONFLICT (trigger, server) DO UPDATE
             SET since = CASE WHEN s.state = excluded.state THEN s.since ELSE excluded.since END,
                 state = excluded.state, error = COALESCE(excluded.error, CASE WHEN excluded.state = 'on' THEN NULL ELSE s.error END),
                 seen_at = excluded.seen_at",
            trigger.uuid(),
            self.inner.server,
            state.as_str(),
            error.as_deref(),
        )
        .execute(self.relaxed())
        .await?;
        Ok(())
    }

    /// How many messages of a queue wait here: the bound for taking more from its broker. Counts no further than `most`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn waiting_messages(&self, (namespace, queue): &super::QueueKey, most: i64) -> Result<i64, StoreError> {
        let waiting = sqlx::query_scalar!(
            r#"SELECT count(*) AS "waiting!" FROM (
                 SELECT FROM messages m WHERE m.namespace = $1 AND m.queue = $2 AND m.due IS NULL AND NOT m.behind
                   AND m.invocation IS NULL AND m.dead_at IS NULL LIMIT $3) w"#,
            namespace.as_str(),
            queue,
            most,
        );
        Ok(waiting.fetch_one(self.steady().pool()).await?)
    }
}
