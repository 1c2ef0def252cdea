//! Schedules and their ticks: how far each schedule is decided, what became of its ticks, and the runs that must not overlap.
//!
//! ```text
//!  deploy ─► cron_schedules (cursor) ─► fire: cursor moves, ticks, invocations and queue rows, in one transaction
//!                                         └─ held: waits in the queue with not_before = infinity ─► release
//! ```
//! Whoever fires holds the schedule's row and finds the cursor where it expects it; everybody else passes it over. So each tick is
//! decided once, however many servers there are. When ticks are due is not known here: `runlet-triggers` computes it.

pub(super) mod deploy;
mod fire;
mod list;
mod release;

pub use list::{Paused, TickRecord, TriggerRecord};

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::text::noun;
use super::{Store, StoreError};
use crate::clock::Timestamp;
use crate::id::TriggerId;
use crate::manifest::{CronTrigger, Overlap};
use crate::name::{FunctionName, Namespace};

/// A schedule that is not paused.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Its trigger.
    pub trigger: TriggerId,
    /// Owner.
    pub namespace: Namespace,
    /// The function it starts.
    pub function: FunctionName,
    /// What it says.
    pub spec: CronTrigger,
    /// All ticks up to here are decided.
    pub cursor: Timestamp,
}

/// What became of a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It made an invocation.
    Fired,
    /// It made an invocation that waits for the end of the one before it.
    Held,
    /// It was passed over: an earlier run was not over.
    Skipped,
    /// It was passed over: nobody was there for it.
    Missed,
    /// It was passed over: as many runs as the trigger may have were not over.
    Full,
}

impl Fate {
    /// Every fate.
    pub const ALL: [Self; 5] = [Self::Fired, Self::Held, Self::Skipped, Self::Missed, Self::Full];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fired => "fired",
            Self::Held => "held",
            Self::Skipped => "skipped",
            Self::Missed => "missed",
            Self::Full => "full",
        }
    }

    /// Whether it has an invocation.
    #[must_use]
    pub const fn runs(self) -> bool {
        matches!(self, Self::Fired | Self::Held)
    }
}

/// Runs of a trigger that are not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Live {
    /// Running, or waiting for nothing but a free place.
    pub running: u32,
    /// Waiting for the end of an earlier one.
    pub held: u32,
}

/// What is due of one schedule.
#[derive(Debug, Clone)]
pub struct DueTicks {
    /// The trigger.
    pub trigger: TriggerId,
    /// The rhythm that this was computed from.
    pub rhythm: String,
    /// Where the cursor is expected.
    pub from: Timestamp,
    /// What a tick does while earlier runs are not over.
    pub overlap: Overlap,
    /// Most runs that may run and wait at a time.
    pub backlog: u32,
    /// Ticks to decide about, oldest first.
    pub ticks: Vec<DueTick>,
    /// Ticks that are passed over because nobody was there for them.
    pub missed: Vec<Timestamp>,
}

/// A tick to decide about.
#[derive(Debug, Clone)]
pub struct DueTick {
    /// The moment the schedule names.
    pub at: Timestamp,
    /// Whether it is made good for, after it was missed.
    pub missed: bool,
    /// How much later its run may start.
    pub delay: Duration,
    /// The body of its invocation, JSON.
    pub body: Bytes,
}

/// What is to become of the ticks of one schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The fate of each, in their order.
    pub fates: Vec<Fate>,
    /// Whether what runs and waits of the trigger is cancelled first.
    pub cancel: bool,
}

/// What was decided about one schedule.
#[derive(Debug, Clone)]
pub struct Fired {
    /// The trigger.
    pub trigger: TriggerId,
    /// Invocations that were made.
    pub invocations: u32,
    /// Of them, those that wait for an earlier one.
    pub held: u32,
}

impl Store {
    /// Every schedule that is not paused, of all namespaces.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn schedules(&self) -> Result<Vec<Schedule>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT s.trigger AS "trigger: TriggerId", t.namespace AS "namespace: Namespace",
                   t.function AS "function: FunctionName", t.spec, s.cursor
               FROM cron_schedules s JOIN triggers t ON t.id = s.trigger
               WHERE s.paused_at IS NULL ORDER BY s.trigger"#
        )
        .fetch_all(self.pool())
        .await?;
        rows.into_iter()
            .map(|row| {
                let spec = noun("triggers", &row.trigger, row.spec)?;
                let (trigger, namespace, function, cursor) = (row.trigger, row.namespace, row.function, row.cursor);
                Ok(Schedule { trigger, namespace, function, spec, cursor })
            })
            .collect()
    }

    /// Takes a cursor back to `to`: the clock was wrong when it was set.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn rewind_schedule(&self, trigger: TriggerId, from: Timestamp, to: Timestamp) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE cron_schedules SET cursor = $3 WHERE trigger = $1 AND cursor = $2",
            trigger.uuid(),
            from,
            to
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }
}
