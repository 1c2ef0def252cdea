//! Firing: ticks, their invocations and the cursors, in one transaction.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::{Decision, DueTicks, Fate, Fired, Live};
use crate::cause::{Cause, CauseKind};
use crate::clock::{self, Timestamp};
use crate::id::{InvocationId, TriggerId};
use crate::invocation::InvocationState;
use crate::name::{FunctionName, Namespace, RevisionDigest};
use crate::store::current::Current;
use crate::store::queue::Wakeup;
use crate::store::queue::at_once::{AtOnce, NewWork};
use crate::store::queue::cancel::close_waiting;
use crate::store::queue::news::notify;
use crate::store::text::{count, json, noun, word};
use crate::store::{Store, StoreError};
use crate::unit::{ByteSize, Span};

/// Content type of what an invocation of a schedule is given.
const JSON: &str = "application/json";

/// The schedules of a function that are ours to fire: their rows are locked, and their cursors are where they were expected.
struct Ours {
    namespace: Namespace,
    function: FunctionName,
    revision: RevisionDigest,
    reset: String,
    on_lost: String,
    max_concurrency: i32,
    memory: Value,
    max_age: Option<String>,
    set_at: Option<Timestamp>,
    triggers: Vec<Uuid>,
    running: Vec<i64>,
    held: Vec<i64>,
}

impl Ours {
    /// Each schedule, and its runs that are not over.
    fn schedules(&self) -> impl Iterator<Item = (TriggerId, Live)> {
        let live = self.running.iter().zip(&self.held);
        let live = live.map(|(running, held)| Live { running: small(*running), held: small(*held) });
        self.triggers.iter().map(|trigger| TriggerId::from(*trigger)).zip(live)
    }
}

impl Store {
    /// Fires what is due `at` a moment, up to which all is decided then: for each schedule whose cursor is where it is expected, the ticks
    /// get the fates that `decide` gives them, and those that run their invocations. All of it or nothing. What another server fires at
    /// the same moment, or has fired, is passed over, as is what was paused, changed or removed: it is not among those returned.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn fire(
        &self,
        due: &[DueTicks],
        at: Timestamp,
        decide: impl Fn(&DueTicks, Live) -> Decision + Send,
    ) -> Result<Vec<Fired>, StoreError> {
        let mut lane = self.steady().take().await?;
        let mut tx = lane.begin().await?;
        let ours = lock(&mut tx, due).await?;
        let by_trigger: HashMap<TriggerId, &DueTicks> = due.iter().map(|due| (due.trigger, due)).collect();
        let mut columns = Columns::default();
        let mut at_once = self.at_once();
        let mut fired = Vec::with_capacity(ours.len());
        let mut cancelled = Vec::new();
        for ours in &ours {
            let plan = Plan::of(ours, &at_once)?;
            for (trigger, live) in ours.schedules() {
                let Some(due) = by_trigger.get(&trigger).copied() else { continue };
                let decision = decide(due, live);
                if decision.cancel {
                    cancelled.push(trigger.uuid());
                }
                fired.push(columns.add(&plan, due, &decision, &mut at_once));
            }
        }
        if !cancelled.is_empty() {
            cancel_runs(&mut tx, &cancelled).await?;
        }
        let made = columns.write(&mut tx, at, &at_once).await?;
        tx.commit().await?;
        lane.keep();
        if made.waiting > 0 {
            self.tell(Wakeup::Work);
        }
        at_once.start(made.executions.into_iter().zip(made.fences));
        Ok(fired)
    }
}

fn small(n: i64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Locks the schedules that are ours to fire. Everybody locks in one order, and waits for nobody. A manifest may be large: each
/// function's is read once.
async fn lock(tx: &mut PgConnection, due: &[DueTicks]) -> Result<Vec<Ours>, StoreError> {
    let triggers: Vec<Uuid> = due.iter().map(|due| due.trigger.uuid()).collect();
    let cursors: Vec<Timestamp> = due.iter().map(|due| due.from).collect();
    let rhythms: Vec<&str> = due.iter().map(|due| due.rhythm.as_str()).collect();
    let ours = sqlx::query_as!(
        Ours,
        r#"WITH d AS (
             SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::text[]) AS d (trigger, cursor, rhythm)
           ), ours AS (
             SELECT s.trigger, t.namespace, t.function, live.running, live.held
             FROM d
             JOIN cron_schedules s ON s.trigger = d.trigger
             JOIN triggers t ON t.id = s.trigger
             CROSS JOIN LATERAL (
               SELECT count(*) FILTER (WHERE q.not_before < 'infinity') AS running, count(*) FILTER (WHERE q.not_before = 'infinity') AS held
               FROM queue q WHERE q.trigger = s.trigger
             ) live
             WHERE s.paused_at IS NULL AND s.cursor = d.cursor AND s.rhythm = d.rhythm
             ORDER BY s.trigger
             FOR UPDATE OF s SKIP LOCKED
           ), grouped AS (
             SELECT namespace, function, array_agg(trigger) AS triggers, array_agg(running) AS running, array_agg(held) AS held
             FROM ours GROUP BY namespace, function
           )
           SELECT g.namespace AS "namespace: Namespace", g.function AS "function: FunctionName", r.digest AS "revision: RevisionDigest",
               r.manifest ->> 'reset' AS "reset!", r.manifest ->> 'on_lost' AS "on_lost!",
               (r.manifest ->> 'max_concurrency')::integer AS "max_concurrency!", r.manifest #> '{limits,memory}' AS "memory!",
               r.manifest #>> '{retry,max_age}' AS max_age, o.set_at AS "set_at?", g.triggers AS "triggers!", g.running AS "running!",
               g.held AS "held!"
           FROM grouped g
           JOIN functions f ON f.namespace = g.namespace AND f.name = g.function
           JOIN revisions r ON r.namespace = f.namespace AND r.digest = f.revision
           LEFT JOIN function_settings o ON o.namespace = f.namespace AND o.function = f.name"#,
        &triggers,
        &cursors,
        &rhythms as &[&str],
    )
    .fetch_all(tx)
    .await?;
    Ok(ours)
}

/// Cancels all that runs and waits of these triggers.
async fn cancel_runs(tx: &mut PgConnection, triggers: &[Uuid]) -> Result<(), StoreError> {
    let waiting = sqlx::query_scalar!(
        "DELETE FROM queue WHERE trigger = ANY($1) AND lease_until IS NULL RETURNING invocation",
        triggers
    )
    .fetch_all(&mut *tx)
    .await?;
    close_waiting(tx, &waiting, InvocationState::Cancelled).await?;
    let running = sqlx::query_scalar!(
        "UPDATE queue SET cancelled = true WHERE trigger = ANY($1) AND lease_until IS NOT NULL RETURNING invocation",
        triggers
    )
    .fetch_all(&mut *tx)
    .await?;
    notify(tx, running.into_iter().map(|id| Wakeup::Cancel(InvocationId::from(id)))).await
}

/// What all ticks of a function have in common.
struct Plan<'a> {
    ours: &'a Ours,
    known: Option<Arc<Current>>,
    /// Bytes.
    memory: i64,
    max_age: Option<Duration>,
}

impl<'a> Plan<'a> {
    fn of(ours: &'a Ours, at_once: &AtOnce<'_>) -> Result<Self, StoreError> {
        let memory: ByteSize = noun("revisions", &ours.revision, ours.memory.clone())?;
        let max_age = ours.max_age.as_deref();
        let max_age = max_age.map(|age| word::<Span>("revisions", &ours.revision, age)).transpose()?;
        Ok(Self {
            ours,
            known: at_once.known(&ours.namespace, &ours.function, &ours.revision, ours.set_at),
            memory: count(memory.0),
            max_age: max_age.map(|age| age.0),
        })
    }
}

/// What was made of decided ticks: how much of it waits, and the executions and fences of what is claimed.
struct Made {
    waiting: i64,
    executions: Vec<Uuid>,
    fences: Vec<i64>,
}

/// Decided ticks, column by column.
#[derive(Default)]
struct Columns<'a> {
    triggers: Vec<Uuid>,
    namespaces: Vec<&'a str>,
    fires_at: Vec<Timestamp>,
    fates: Vec<&'static str>,
    invocations: Vec<Option<Uuid>>,
    delays: Vec<f64>,
    causes: Vec<String>,
    payloads: Vec<&'a [u8]>,
    functions: Vec<&'a str>,
    revisions: Vec<&'a str>,
    resets: Vec<&'a str>,
    on_lost: Vec<&'a str>,
    max_concurrency: Vec<i32>,
    memory: Vec<i64>,
    max_age: Vec<Option<f64>>,
    executions: Vec<Option<Uuid>>,
    moved: Vec<Uuid>,
}

impl<'a> Columns<'a> {
    fn add(&mut self, plan: &Plan<'a>, due: &'a DueTicks, decision: &Decision, at_once: &mut AtOnce<'_>) -> Fired {
        let Plan { ours, known, memory, max_age } = plan;
        let now = clock::now();
        let mut fired = Fired { trigger: due.trigger, invocations: 0, held: 0 };
        let missed = due.missed.iter().map(|at| (*at, Fate::Missed, 0.0, None));
        let decided = due.ticks.iter().zip(&decision.fates);
        let decided = decided.map(|(tick, fate)| (tick.at, *fate, tick.delay.as_secs_f64(), Some(&tick.body)));
        for (at, fate, delay, body) in missed.chain(decided) {
            fired.invocations += u32::from(fate.runs());
            fired.held += u32::from(fate == Fate::Held);
            self.triggers.push(due.trigger.uuid());
            self.namespaces.push(ours.namespace.as_str());
            self.fires_at.push(at);
            self.fates.push(fate.as_str());
            let invocation = InvocationId::new();
            let cause = Cause { trigger: Some(due.trigger), ..Cause::of_kind(CauseKind::Cron) };
            let causes = json(&cause);
            let work = || NewWork {
                invocation,
                cause,
                payload: body.cloned().unwrap_or_default(),
                content_type: Some(JSON.to_owned()),
                priority: 0,
                deadline: max_age.map(|age| now + age),
            };
            let known = known.as_ref().filter(|_| fate == Fate::Fired && delay == 0.0);
            self.executions.push(known.and_then(|known| at_once.reserve(&known.function, work)));
            self.invocations.push(fate.runs().then(|| invocation.uuid()));
            self.delays.push(delay);
            self.causes.push(causes);
            self.payloads.push(body.map_or(&[], Bytes::as_ref));
            self.functions.push(ours.function.as_str());
            self.revisions.push(ours.revision.as_str());
            self.resets.push(&ours.reset);
            self.on_lost.push(&ours.on_lost);
            self.max_concurrency.push(ours.max_concurrency);
            self.memory.push(*memory);
            self.max_age.push(max_age.map(|age| age.as_secs_f64()));
        }
        self.moved.push(due.trigger.uuid());
        fired
    }

    async fn write(&self, tx: &mut PgConnection, at: Timestamp, at_once: &AtOnce<'_>) -> Result<Made, StoreError> {
        let made = sqlx::query_file_as!(
            Made,
            "src/store/cron/fire.sql",
            &self.triggers,
            &self.namespaces as &[&str],
            &self.fires_at,
            &self.fates as &[&str],
            &self.invocations as &[Option<Uuid>],
            &self.delays,
            &self.causes,
            &self.payloads as &[&[u8]],
            &self.functions as &[&str],
            &self.revisions as &[&str],
            &self.resets as &[&str],
            &self.on_lost as &[&str],
            &self.max_concurrency,
            &self.memory,
            clock::now(),
            &self.moved,
            at,
            &self.max_age as &[Option<f64>],
            &self.executions as &[Option<Uuid>],
            at_once.server(),
            at_once.lease(),
        )
        .fetch_one(tx)
        .await?;
        Ok(made)
    }
}
