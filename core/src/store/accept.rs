//! Accepting asynchronous work: delivery, dedup keys, invocations and queue rows in one transaction.

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sqlx::PgConnection;
use uuid::Uuid;

use super::delivery::{NewDelivery, Verdict, insert_delivery};
use super::queue::Wakeup;
use super::spill::Placed;
use super::text::{clean, count, json, noun, word};
use super::{Store, StoreError, answered};
use crate::clock::{self, Timestamp};
use crate::engine::{Accepted, DedupKey, NewInvocation, Submission, Submitted};
use crate::id::{DeliveryId, InvocationId};
use crate::name::{FunctionName, Namespace, RevisionDigest};
use crate::unit::{ByteSize, Span};

/// Longest key that is stored as it is; an index entry has a bound.
const LONGEST_KEY: usize = 255;

/// What a function's revision says about work for it.
struct Plan {
    revision: String,
    reset: String,
    on_lost: String,
    max_concurrency: i32,
    memory: Value,
    max_age: Option<String>,
}

impl Store {
    /// Commits a submission: delivery, dedup keys, invocations and queue rows in one transaction.
    ///
    /// A delivery whose invocations are all repeats is recorded with verdict `duplicate`; the cause of its invocations gets its id.
    /// The outer `Err` means that nothing is on record. An unknown function (or a revision that is not one of its namespace) is
    /// `Ok(Err(name))`: nothing is on record either.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn accept(&self, submission: Submission) -> Result<Result<Submitted, FunctionName>, StoreError> {
        answered(self.commit(submission)).await
    }

    async fn commit(&self, submission: Submission) -> Result<Result<Submitted, FunctionName>, StoreError> {
        let Submission { delivery, mut invocations } = submission;
        let delivery_id = delivery.as_ref().map(|_| DeliveryId::new());
        for invocation in &mut invocations {
            invocation.cause.delivery = delivery_id.or(invocation.cause.delivery);
        }
        let mut tx = self.pool().begin().await?;
        let mut plans = Vec::with_capacity(invocations.len());
        for invocation in &invocations {
            match plan(&mut tx, invocation).await? {
                Some(plan) => plans.push(plan),
                None => return Ok(Err(invocation.function.clone())),
            }
        }
        let accepted = dedup(&mut tx, &invocations).await?;
        let fresh: Vec<_> = (accepted.iter().zip(&invocations).zip(&plans))
            .filter(|((accepted, _), _)| !accepted.repeated)
            .map(|((accepted, invocation), plan)| (accepted.invocation, invocation, plan))
            .collect();
        self.queue(&mut tx, &fresh).await?;
        if let (Some(id), Some(delivery)) = (delivery_id, delivery) {
            let delivery = as_seen(delivery, &accepted);
            let ids: Vec<Uuid> = accepted.iter().map(|accepted| accepted.invocation.uuid()).collect();
            let body = self.place(id.uuid(), delivery.namespace.as_str(), &delivery.body).await?;
            insert_delivery(&mut tx, id, &delivery, &body, &ids).await?;
        }
        let queued = !fresh.is_empty();
        tx.commit().await?;
        if queued {
            self.tell(Wakeup::Work);
        }
        Ok(Ok(Submitted { delivery: delivery_id, invocations: accepted }))
    }

    /// Puts new invocations and their queue rows on record.
    async fn queue(
        &self,
        tx: &mut PgConnection,
        fresh: &[(InvocationId, &NewInvocation, &Plan)],
    ) -> Result<(), StoreError> {
        let now = clock::now();
        for (id, invocation, plan) in fresh {
            // Whoever claims it must have the payload: only where nobody else can, it may be in a file.
            let payload = match self.is_alone() {
                true => self.place(id.uuid(), invocation.namespace.as_str(), &invocation.payload).await?,
                false => Placed::in_row(invocation.payload.clone()),
            };
            insert(tx, *id, invocation, &payload, plan, now).await?;
        }
        Ok(())
    }
}

/// The delivery with the verdict that the dedup keys make of it.
fn as_seen(mut delivery: NewDelivery, accepted: &[Accepted]) -> NewDelivery {
    if !accepted.is_empty() && accepted.iter().all(|accepted| accepted.repeated) {
        delivery.verdict = Verdict::Duplicate;
    }
    delivery
}

/// The revision that an invocation gets; `None` where there is no such function or no such revision.
async fn plan(tx: &mut PgConnection, invocation: &NewInvocation) -> Result<Option<Plan>, StoreError> {
    let plan = sqlx::query_as!(
        Plan,
        r#"SELECT r.digest AS revision, r.manifest ->> 'reset' AS "reset!", r.manifest ->> 'on_lost' AS "on_lost!",
               (r.manifest ->> 'max_concurrency')::integer AS "max_concurrency!", r.manifest #> '{limits,memory}' AS "memory!",
               r.manifest #>> '{retry,max_age}' AS max_age
           FROM functions f
           JOIN revisions r ON r.namespace = f.namespace AND r.digest = COALESCE($3, f.revision) AND r.manifest ->> 'name' = f.name
           WHERE f.namespace = $1 AND f.name = $2"#,
        invocation.namespace.as_str(),
        invocation.function.as_str(),
        invocation.revision.as_ref().map(RevisionDigest::as_str),
    )
    .fetch_optional(tx)
    .await?;
    Ok(plan)
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

async fn insert(
    tx: &mut PgConnection,
    id: InvocationId,
    invocation: &NewInvocation,
    payload: &Placed,
    plan: &Plan,
    now: Timestamp,
) -> Result<(), StoreError> {
    let content_type = invocation.content_type.as_deref().map(clean);
    let memory: ByteSize = noun("revisions", &plan.revision, plan.memory.clone())?;
    let max_age = plan.max_age.as_deref().map(|age| word::<Span>("revisions", &plan.revision, age)).transpose()?;
    let oldest = max_age.map(|age| invocation.not_before.unwrap_or(now).max(now) + age.0);
    let deadline = [invocation.deadline, oldest].into_iter().flatten().min();
    sqlx::query!(
        "WITH invocation AS (
           INSERT INTO invocations (id, namespace, function, revision, cause_kind, cause, state, attempts, executions,
               content_type, payload, payload_size, deadline, created_at, payload_file)
           VALUES ($1, $2, $3, $4, $5, $6::text::jsonb, 'queued', 0, '{}', $7, $8, $9, $10, $11, $17)
         )
         INSERT INTO queue (invocation, namespace, function, revision, cause_kind, reset, on_lost, max_concurrency, memory,
             priority, not_before, deadline)
         VALUES ($1, $2, $3, $4, $5, $12, $13, $14, $15, $16, GREATEST(now(), $18), $10)",
        id.uuid(),
        invocation.namespace.as_str(),
        invocation.function.as_str(),
        plan.revision,
        invocation.cause.kind.as_str(),
        json(&invocation.cause),
        content_type.as_deref(),
        payload.bytes.as_ref(),
        count(invocation.payload.len() as u64),
        deadline,
        now,
        plan.reset,
        plan.on_lost,
        plan.max_concurrency,
        count(memory.0),
        invocation.priority,
        payload.file.as_deref(),
        invocation.not_before,
    )
    .execute(tx)
    .await?;
    Ok(())
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
