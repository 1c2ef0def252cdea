//! Triggers for people: what there is, what was last, pausing and resuming.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::super::text::{clean, noun, word};
use super::super::{Store, StoreError};
use super::Fate;
use crate::clock::Timestamp;
use crate::id::{InvocationId, TriggerId};
use crate::manifest::TriggerSpec;
use crate::name::{FunctionName, Namespace};
use crate::store::message::BrokerState;
use crate::store::queue::Wakeup;
use crate::store::queue::news::notify;

/// A trigger on record.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TriggerRecord {
    /// Its id.
    pub id: TriggerId,
    /// The function it starts.
    pub function: FunctionName,
    /// What it says.
    #[schema(value_type = Object)]
    pub spec: TriggerSpec,
    /// cron: all ticks up to here are decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub cursor: Option<Timestamp>,
    /// cron: the next tick, where it has been computed; the ledger does not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_at: Option<Timestamp>,
    /// Since when and why it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
    /// cron: the last tick that was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_tick: Option<TickRecord>,
    /// queue: how the servers get on with the broker, the worst of them; missing for built-in queues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker: Option<BrokerState>,
}

/// A pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Paused {
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A tick that is decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TickRecord {
    /// The moment the schedule names.
    #[schema(value_type = String, format = DateTime)]
    pub fires_at: Timestamp,
    /// What became of it.
    pub fate: Fate,
    /// The invocation it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation: Option<InvocationId>,
    /// When it was decided.
    #[schema(value_type = String, format = DateTime)]
    pub decided_at: Timestamp,
}

struct Row {
    id: TriggerId,
    function: FunctionName,
    kind: String,
    spec: Value,
    cursor: Option<Timestamp>,
    paused_at: Option<Timestamp>,
    note: Option<String>,
    fires_at: Option<Timestamp>,
    fate: Option<String>,
    invocation: Option<InvocationId>,
    decided_at: Option<Timestamp>,
    broker_state: Option<String>,
    broker_error: Option<String>,
    broker_since: Option<Timestamp>,
}

impl Row {
    fn record(self) -> Result<TriggerRecord, StoreError> {
        let id = self.id;
        let mut spec = self.spec;
        if let Value::Object(keys) = &mut spec {
            keys.insert("type".to_owned(), self.kind.into());
        }
        let last_tick = match (self.fires_at, self.fate, self.decided_at) {
            (Some(fires_at), Some(fate), Some(decided_at)) => {
                let fate = word("cron_ticks", &id, &fate)?;
                Some(TickRecord { fires_at, fate, invocation: self.invocation, decided_at })
            }
            _ => None,
        };
        let paused = self.paused_at.map(|at| Paused { at, note: self.note });
        let spec = noun("triggers", &id, spec)?;
        let broker = match (self.broker_state, self.broker_since) {
            (Some(state), Some(since)) => {
                Some(BrokerState { state: word("broker_states", &id, &state)?, error: self.broker_error, since })
            }
            _ => None,
        };
        let (function, cursor) = (self.function, self.cursor);
        Ok(TriggerRecord { id, function, spec, cursor, next_at: None, paused, last_tick, broker })
    }
}

impl Store {
    /// Up to `limit` triggers of the namespace behind `after`, by id; of one function where that is given, or one trigger.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn triggers(
        &self,
        namespace: &Namespace,
        function: Option<&FunctionName>,
        one: Option<TriggerId>,
        after: Option<TriggerId>,
        limit: i64,
    ) -> Result<Vec<TriggerRecord>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT t.id AS "id: TriggerId", t.function AS "function: FunctionName", t.kind, t.spec,
                   s.cursor AS "cursor?", s.paused_at, s.note, k.fires_at AS "fires_at?", k.fate AS "fate?",
                   k.invocation AS "invocation: InvocationId", k.decided_at AS "decided_at?",
                   b.state AS "broker_state?", b.error AS "broker_error?", b.since AS "broker_since?"
               FROM triggers t
               LEFT JOIN cron_schedules s ON s.trigger = t.id
               LEFT JOIN LATERAL (
                 SELECT * FROM cron_ticks c WHERE c.namespace = t.namespace AND c.trigger = t.id ORDER BY c.fires_at DESC LIMIT 1
               ) k ON true
               LEFT JOIN LATERAL (
                 SELECT * FROM broker_states s WHERE s.trigger = t.id AND s.seen_at > now() - interval '30 seconds'
                 ORDER BY s.state <> 'failing', s.state <> 'connecting', s.since LIMIT 1
               ) b ON true
               WHERE t.namespace = $1 AND ($2::text IS NULL OR t.function = $2) AND ($3::uuid IS NULL OR t.id = $3)
                 AND ($4::uuid IS NULL OR t.id > $4)
               ORDER BY t.id LIMIT $5"#,
            namespace.as_str(),
            function.map(FunctionName::as_str),
            one.map(TriggerId::uuid),
            after.map(TriggerId::uuid),
            limit.max(0),
        )
        .fetch_all(self.pool())
        .await?;
        rows.into_iter().map(Row::record).collect()
    }

    /// The last ticks of a trigger, newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn ticks(
        &self,
        namespace: &Namespace,
        trigger: TriggerId,
        limit: i64,
    ) -> Result<Vec<TickRecord>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT fires_at, fate, invocation AS "invocation: InvocationId", decided_at FROM cron_ticks
               WHERE namespace = $1 AND trigger = $2 ORDER BY fires_at DESC LIMIT $3"#,
            namespace.as_str(),
            trigger.uuid(),
            limit.max(0),
        )
        .fetch_all(self.pool())
        .await?;
        rows.into_iter()
            .map(|row| {
                let fate = word("cron_ticks", &trigger, &row.fate)?;
                Ok(TickRecord { fires_at: row.fires_at, fate, invocation: row.invocation, decided_at: row.decided_at })
            })
            .collect()
    }

    /// Pauses a schedule, with a note; one that is paused keeps its moment and gets the new note. `false`: there is no such schedule.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn pause_schedule(
        &self,
        namespace: &Namespace,
        trigger: TriggerId,
        note: Option<&str>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let note = note.map(clean);
        let mut tx = self.pool().begin().await?;
        let done = sqlx::query!(
            "UPDATE cron_schedules SET paused_at = COALESCE(paused_at, $3), note = $4 WHERE namespace = $1 AND trigger = $2",
            namespace.as_str(),
            trigger.uuid(),
            now,
            note.as_deref(),
        )
        .execute(&mut *tx)
        .await?;
        notify(&mut *tx, [Wakeup::Schedules]).await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Lets a paused schedule go on, from `now`: ticks of the pause are not made good for. `false`: there is no such schedule.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn resume_schedule(
        &self,
        namespace: &Namespace,
        trigger: TriggerId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.pool().begin().await?;
        // Never back: what was decided stays so, even if the clock was set back during the pause.
        let done = sqlx::query!(
            "UPDATE cron_schedules
             SET cursor = CASE WHEN paused_at IS NULL THEN cursor ELSE greatest(cursor, $3) END, paused_at = NULL, note = NULL
             WHERE namespace = $1 AND trigger = $2",
            namespace.as_str(),
            trigger.uuid(),
            now,
        )
        .execute(&mut *tx)
        .await?;
        notify(&mut *tx, [Wakeup::Schedules]).await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }
}
