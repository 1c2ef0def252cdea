//! Putting a choice on record: the invocations, claimed where they can start at once, and what became of the messages.

use sqlx::PgConnection;
use uuid::Uuid;

use super::super::{QueueKey, lock_keys, lock_of, promote};
use super::{Batch, Candidate, Choice, Plan};
use crate::clock;
use crate::id::InvocationId;
use crate::name::Namespace;
use crate::store::StoreError;
use crate::store::queue::at_once::{AtOnce, NewWork};
use crate::store::text::{clean, count, json, noun};
use crate::unit::ByteSize;

/// Puts a choice on record. Returns the executions and fences of what was claimed with it; `None` if a message is not there any more.
pub(super) async fn write(
    tx: &mut PgConnection,
    (namespace, queue): &QueueKey,
    plans: &[Plan],
    candidates: &[Candidate],
    choice: &Choice,
    at_once: &mut AtOnce<'_>,
) -> Result<Option<Vec<(Uuid, i64)>>, StoreError> {
    let mut columns = Columns::default();
    for batch in &choice.batches {
        let Some(plan) = plans.iter().find(|plan| plan.trigger == batch.trigger) else { continue };
        columns.push(namespace, plan, batch, candidates, at_once)?;
    }
    let named = |place: &usize| candidates.get(*place).map(|candidate| candidate.id.uuid());
    let unwanted: Vec<Uuid> = choice.unwanted.iter().filter_map(named).collect();
    let dead: Vec<Uuid> = choice.dead.iter().filter_map(|(place, _)| named(place)).collect();
    let reasons: Vec<String> = choice.dead.iter().map(|(_, reason)| clean(reason).into_owned()).collect();
    let expected = columns.messages.len() + unwanted.len() + dead.len();
    if expected == 0 {
        return Ok(Some(Vec::new()));
    }
    let over = choice.unwanted.iter().chain(choice.dead.iter().map(|(place, _)| place));
    let keys: Vec<(&Namespace, &str, &str)> =
        over.filter_map(|place| Some((namespace, queue.as_str(), candidates.get(*place)?.key.as_deref()?))).collect();
    lock_keys(tx, keys.iter().map(|(_, _, key)| lock_of(namespace.as_str(), queue, key)).collect()).await?;
    let written = sqlx::query_file!(
        "src/store/message/take.sql",
        &columns.invocations,
        &columns.triggers,
        &columns.causes,
        &columns.payloads as &[&[u8]],
        &columns.content_types as &[Option<String>],
        &columns.priorities,
        &columns.namespaces as &[&str],
        &columns.functions as &[&str],
        &columns.revisions as &[&str],
        &columns.resets as &[&str],
        &columns.on_lost as &[&str],
        &columns.max_concurrency,
        &columns.memory,
        clock::now(),
        &columns.messages,
        &columns.of_invocation,
        &columns.of_trigger,
        &unwanted,
        &dead,
        &reasons,
        &columns.executions as &[Option<Uuid>],
        at_once.server(),
        at_once.lease(),
    )
    .fetch_one(&mut *tx)
    .await?;
    promote(tx, &keys).await?;
    let done = usize::try_from(written.done).ok() == Some(expected);
    Ok(done.then(|| written.executions.into_iter().zip(written.fences).collect()))
}

/// Invocations and their messages, column by column.
#[derive(Default)]
struct Columns<'a> {
    invocations: Vec<Uuid>,
    triggers: Vec<Uuid>,
    causes: Vec<String>,
    payloads: Vec<&'a [u8]>,
    content_types: Vec<Option<String>>,
    priorities: Vec<i16>,
    namespaces: Vec<&'a str>,
    functions: Vec<&'a str>,
    revisions: Vec<&'a str>,
    resets: Vec<&'a str>,
    on_lost: Vec<&'a str>,
    max_concurrency: Vec<i32>,
    memory: Vec<i64>,
    executions: Vec<Option<Uuid>>,
    messages: Vec<Uuid>,
    of_invocation: Vec<Uuid>,
    of_trigger: Vec<Uuid>,
}

impl<'a> Columns<'a> {
    fn push(
        &mut self,
        namespace: &'a Namespace,
        plan: &'a Plan,
        batch: &'a Batch,
        candidates: &[Candidate],
        at_once: &mut AtOnce<'_>,
    ) -> Result<(), StoreError> {
        let memory: ByteSize = noun("revisions", &plan.revision, plan.memory.clone())?;
        let id = InvocationId::new();
        let invocation = id.uuid();
        let messages = || batch.messages.iter().filter_map(|place| candidates.get(*place));
        let priority = messages().map(|message| message.priority).max().unwrap_or(0);
        let content_type = batch.content_type.as_deref().map(|text| clean(text).into_owned());
        let known = at_once.known(namespace, &plan.function, &plan.revision, plan.set_at);
        let work = || NewWork {
            invocation: id,
            cause: batch.cause.clone(),
            payload: batch.payload.clone(),
            content_type: content_type.clone(),
            priority,
            deadline: None,
        };
        self.executions.push(known.and_then(|known| at_once.reserve(&known.function, work)));
        self.invocations.push(invocation);
        self.triggers.push(plan.trigger.uuid());
        self.causes.push(json(&batch.cause));
        self.payloads.push(&batch.payload);
        self.content_types.push(content_type);
        self.priorities.push(priority);
        self.namespaces.push(namespace.as_str());
        self.functions.push(plan.function.as_str());
        self.revisions.push(plan.revision.as_str());
        self.resets.push(&plan.reset);
        self.on_lost.push(&plan.on_lost);
        self.max_concurrency.push(plan.max_concurrency);
        self.memory.push(count(memory.0));
        for message in messages() {
            self.messages.push(message.id.uuid());
            self.of_invocation.push(invocation);
            self.of_trigger.push(plan.trigger.uuid());
        }
        Ok(())
    }
}
