//! Accepting asynchronous work: delivery, dedup keys, invocations and queue rows in one transaction.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::current::Current;
use super::delivery::{NewDelivery, Verdict, insert_delivery};
use super::queue::Wakeup;
use super::queue::at_once::{AtOnce, NewWork};
use super::spill::Placed;
use super::text::{clean, count, json, noun};
use super::{Store, StoreError, answered};
use crate::clock;
use crate::engine::{Accepted, DedupKey, NewInvocation, Submission, Submitted};
use crate::id::{DeliveryId, InvocationId};
use crate::manifest::{Manifest, OnLost, Reset};
use crate::name::{FunctionName, Namespace, RevisionDigest};
use crate::unit::{ByteSize, Span};

/// Longest key that is stored as it is; an index entry has a bound.
const LONGEST_KEY: usize = 255;

/// What a function's revision says about work for it.
struct Plan {
    revision: RevisionDigest,
    reset: Reset,
    on_lost: OnLost,
    max_concurrency: u32,
    memory: ByteSize,
    max_age: Option<Span>,
    /// The function as this server saw it last, which is still to be checked.
    known: Option<Arc<Current>>,
}

impl Plan {
    fn new(revision: RevisionDigest, manifest: &Manifest, known: Option<Arc<Current>>) -> Self {
        let Manifest { reset, on_lost, max_concurrency, limits, ref retry, .. } = *manifest;
        Self { revision, reset, on_lost, max_concurrency, memory: limits.memory, max_age: retry.max_age, known }
    }
}

impl Store {
    /// Commits a submission: delivery, dedup keys, invocations and queue rows in one transaction.
    ///
    /// A delivery whose invocations are all repeats is recorded with verdict `duplicate`; the cause of its invocations gets its id.
    /// The outer `Err` means that nothing is on record. An unknown function (or a revision that is not one of its namespace) is
    /// `Ok(Err(name))`: nothing is on record either. What can start at once here does so.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn accept(&self, submission: Submission) -> Result<Result<Submitted, FunctionName>, StoreError> {
        answered(async {
            // One statement is a transaction too.
            if let ([invocation], None) = (&submission.invocations[..], &submission.delivery)
                && invocation.dedup.is_none()
                && let Some(submitted) = self.accept_known(invocation).await?
            {
                return Ok(Ok(submitted));
            }
            self.commit(submission).await
        })
        .await
    }

    /// Accepts work of a function that is as this server saw it last; `None` if it is not.
    async fn accept_known(&self, invocation: &NewInvocation) -> Result<Option<Submitted>, StoreError> {
        let Some(plan) = self.planned(invocation) else { return Ok(None) };
        let (id, mut at_once) = (InvocationId::new(), self.at_once());
        let Some(begun) = self.queue(self.pool(), id, invocation, &plan, &mut at_once).await? else { return Ok(None) };
        if begun.is_none() {
            self.tell(Wakeup::Work);
        }
        at_once.start(begun);
        let accepted = Accepted { function: invocation.function.clone(), invocation: id, repeated: false };
        Ok(Some(Submitted { delivery: None, invocations: vec![accepted] }))
    }

    async fn commit(&self, submission: Submission) -> Result<Result<Submitted, FunctionName>, StoreError> {
        let Submission { delivery, mut invocations } = submission;
        let delivery_id = delivery.as_ref().map(|_| DeliveryId::new());
        for invocation in &mut invocations {
            invocation.cause.delivery = delivery_id.or(invocation.cause.delivery);
        }
        let mut at_once = self.at_once();
        let mut tx = self.pool().begin().await?;
        let mut plans = Vec::with_capacity(invocations.len());
        for invocation in &invocations {
            match self.plan(&mut tx, invocation).await? {
                Some(plan) => plans.push(plan),
                None => return Ok(Err(invocation.function.clone())),
            }
        }
        let accepted = dedup(&mut tx, &invocations).await?;
        let (mut begun, mut waits) = (Vec::new(), false);
        for ((accepted, invocation), plan) in accepted.iter().zip(&invocations).zip(&plans) {
            if accepted.repeated {
                continue;
            }
            let id = accepted.invocation;
            let queued = match self.queue(&mut *tx, id, invocation, plan, &mut at_once).await? {
                Some(queued) => queued,
                None => {
                    // It was deployed anew, or set, since this server looked.
                    let Some(plan) = on_record(&mut tx, invocation).await? else {
                        return Ok(Err(invocation.function.clone()));
                    };
                    self.queue(&mut *tx, id, invocation, &plan, &mut at_once).await?.flatten()
                }
            };
            waits |= queued.is_none();
            begun.extend(queued);
        }
        if let (Some(id), Some(delivery)) = (delivery_id, delivery) {
            let delivery = as_seen(delivery, &accepted);
            let ids: Vec<Uuid> = accepted.iter().map(|accepted| accepted.invocation.uuid()).collect();
            let body = self.place(id.uuid(), delivery.namespace.as_str(), &delivery.body).await?;
            insert_delivery(&mut tx, id, &delivery, &body, &ids).await?;
        }
        tx.commit().await?;
        if waits {
            self.tell(Wakeup::Work);
        }
        at_once.start(begun);
        Ok(Ok(Submitted { delivery: delivery_id, invocations: accepted }))
    }

    /// What is known of an invocation's function, if that is the revision it wants.
    fn planned(&self, invocation: &NewInvocation) -> Option<Plan> {
        let wanted = invocation.revision.as_ref();
        let known = self.known(&invocation.namespace, &invocation.function)?;
        let function = &known.function;
        let fits = wanted.is_none_or(|wanted| *wanted == function.revision);
        fits.then(|| Plan::new(function.revision.clone(), &function.manifest, Some(Arc::clone(&known))))
    }

    /// What an invocation's function says; `None` where there is no such function or no such revision.
    async fn plan(&self, tx: &mut PgConnection, invocation: &NewInvocation) -> Result<Option<Plan>, StoreError> {
        match self.planned(invocation) {
            Some(plan) => Ok(Some(plan)),
            None => on_record(tx, invocation).await,
        }
    }

    /// Puts a new invocation and its queue row on record; claimed, where it can start at once: then its execution and fence are
    /// returned. `None`: the function is not as it was known, and nothing was done.
    async fn queue(
        &self,
        to: impl PgExecutor<'_>,
        id: InvocationId,
        invocation: &NewInvocation,
        plan: &Plan,
        at_once: &mut AtOnce<'_>,
    ) -> Result<Option<Option<(Uuid, i64)>>, StoreError> {
        let now = clock::now();
        // Whoever claims it must have the payload: only where nobody else can, it may be in a file.
        let payload = match self.is_alone() {
            true => self.place(id.uuid(), invocation.namespace.as_str(), &invocation.payload).await?,
            false => Placed::in_row(invocation.payload.clone()),
        };
        let oldest = plan.max_age.map(|age| invocation.not_before.unwrap_or(now).max(now) + age.0);
        let deadline = [invocation.deadline, oldest].into_iter().flatten().min();
        let content_type = invocation.content_type.as_deref().map(clean);
        let work = || NewWork {
            invocation: id,
            cause: invocation.cause.clone(),
            payload: invocation.payload.clone(),
            content_type: content_type.as_deref().map(str::to_owned),
            priority: invocation.priority,
            deadline,
        };
        let due = invocation.not_before.is_none_or(|moment| moment <= now) && deadline.is_none_or(|over| over > now);
        let known = plan.known.as_ref().filter(|_| due);
        let execution = known.and_then(|known| at_once.reserve(&known.function, work));
        let queued = sqlx::query_file_scalar!(
            "src/store/accept.sql",
            id.uuid(),
            invocation.namespace.as_str(),
            invocation.function.as_str(),
            plan.revision.as_str(),
            invocation.cause.kind.as_str(),
            json(&invocation.cause),
            content_type.as_deref(),
            payload.bytes.as_ref(),
            count(invocation.payload.len() as u64),
            deadline,
            now,
            plan.reset.as_str(),
            plan.on_lost.as_str(),
            i32::try_from(plan.max_concurrency).unwrap_or(i32::MAX),
            count(plan.memory.0),
            invocation.priority,
            payload.file.as_deref(),
            invocation.not_before,
            plan.known.is_some(),
            plan.known.as_ref().and_then(|known| known.function.settings.set_at),
            execution,
            at_once.server(),
            at_once.lease(),
        )
        .fetch_optional(to)
        .await?;
        Ok(queued.map(|fence| execution.zip(fence)))
    }
}

/// The delivery with the verdict that the dedup keys make of it.
fn as_seen(mut delivery: NewDelivery, accepted: &[Accepted]) -> NewDelivery {
    if !accepted.is_empty() && accepted.iter().all(|accepted| accepted.repeated) {
        delivery.verdict = Verdict::Duplicate;
    }
    delivery
}

/// What is on record of an invocation's function and revision; `None` where there is none.
async fn on_record(tx: &mut PgConnection, invocation: &NewInvocation) -> Result<Option<Plan>, StoreError> {
    let row = sqlx::query!(
        r#"SELECT r.digest AS "revision: RevisionDigest", r.manifest
           FROM functions f
           JOIN revisions r ON r.namespace = f.namespace AND r.digest = COALESCE($3, f.revision) AND r.manifest ->> 'name' = f.name
           WHERE f.namespace = $1 AND f.name = $2"#,
        invocation.namespace.as_str(),
        invocation.function.as_str(),
        invocation.revision.as_ref().map(RevisionDigest::as_str),
    )
    .fetch_optional(tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let manifest: Manifest = noun("revisions", &row.revision, row.manifest)?;
    Ok(Some(Plan::new(row.revision, &manifest, None)))
}

/// Takes the keys of a submission, all in one order for everybody, so that two submissions never wait for each other in a circle.
async fn dedup(tx: &mut PgConnection, invocations: &[NewInvocation]) -> Result<Vec<Accepted>, StoreError> {
    let new = |invocation: &NewInvocation| Accepted {
        function: invocation.function.clone(),
        invocation: InvocationId::new(),
        repeated: false,
    };
    let mut accepted: Vec<Accepted> = invocations.iter().map(new).collect();
    let mut keyed: Vec<(&NewInvocation, &DedupKey, &mut Accepted)> = (invocations.iter().zip(&mut accepted))
        .filter_map(|(invocation, accepted)| Some((invocation, invocation.dedup.as_ref()?, accepted)))
        .collect();
    keyed.sort_by_key(|(invocation, key, _)| (&invocation.namespace, &key.scope, &key.key));
    for (invocation, key, accepted) in keyed {
        (accepted.invocation, accepted.repeated) = take(tx, &invocation.namespace, key, accepted.invocation).await?;
    }
    Ok(accepted)
}

/// Takes a key for the new invocation `id`, or finds the invocation that has it; says whether it is a repeat.
async fn take(
    tx: &mut PgConnection,
    namespace: &Namespace,
    dedup: &DedupKey,
    id: InvocationId,
) -> Result<(InvocationId, bool), StoreError> {
    let scope = stored_key(&dedup.scope);
    let key = stored_key(&dedup.key);
    loop {
        let new = sqlx::query_scalar!(
            "INSERT INTO dedup_keys AS k (namespace, scope, key, invocation, expires) VALUES ($1, $2, $3, $4, now() + interval '7 days')
             ON CONFLICT (namespace, scope, key) DO UPDATE
             SET invocation = excluded.invocation, expires = excluded.expires, released = false
             WHERE k.released OR k.expires < now()
             RETURNING invocation",
            namespace.as_str(),
            scope,
            key,
            id.uuid(),
        )
        .fetch_optional(&mut *tx)
        .await?;
        if new.is_some() {
            return Ok((id, false));
        }
        let known = sqlx::query_scalar!(
            r#"SELECT invocation AS "invocation: InvocationId" FROM dedup_keys WHERE namespace = $1 AND scope = $2 AND key = $3"#,
            namespace.as_str(),
            scope,
            key,
        )
        .fetch_optional(&mut *tx)
        .await?;
        // No row: the key expired and was swept between the two statements.
        if let Some(known) = known {
            return Ok((known, true));
        }
    }
}

/// A key as it is stored: a long one by its digest.
fn stored_key(key: &str) -> String {
    if key.len() <= LONGEST_KEY {
        return clean(key).into_owned();
    }
    RevisionDigest::from_sha256(&Sha256::digest(key).into()).as_str().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_keys_are_stored_by_their_digest() {
        assert_eq!(stored_key("a\0b"), "a\u{fffd}b");
        let (one, other) = (stored_key(&"x".repeat(9000)), stored_key(&"x".repeat(9001)));
        assert!(one.len() == 71 && one != other);
    }
}
