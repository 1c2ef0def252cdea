//! The queue triggers of a deployed manifest, and the queues that they need.

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::id::TriggerId;
use crate::manifest::{Destination, Manifest, TriggerSpec};
use crate::name::{Namespace, QueueName};
use crate::store::text::json;
use crate::store::{Store, StoreError};

/// Puts the queue triggers of `manifest` in the place of the former ones; returns the ids of those there are now. Queues that are
/// named for the first time are made; nobody's queue is ever removed by a deploy.
pub(in crate::store) async fn replace(
    tx: &mut PgConnection,
    namespace: &Namespace,
    manifest: &Manifest,
    now: Timestamp,
) -> Result<Vec<Uuid>, StoreError> {
    let (mut ids, mut paths, mut ordinals, mut specs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut of_path: HashMap<String, i32> = HashMap::new();
    for trigger in &manifest.triggers {
        let TriggerSpec::Queue(spec) = trigger else { continue };
        let path = spec.ledger_queue(&manifest.name);
        let nth = of_path.entry(path.clone()).or_insert(0);
        if *nth > 0 && spec.source.is_some() {
            return Err(StoreError::Conflict(format!(
                "two triggers of function `{}` take from `{}` of the same broker; leave one of them out",
                manifest.name, spec.queue
            )));
        }
        ids.push(TriggerId::new().uuid());
        ordinals.push(*nth);
        specs.push(json(spec));
        paths.push(path);
        *nth += 1;
    }
    let kept = sqlx::query_scalar!(
        "INSERT INTO triggers (id, namespace, function, kind, path, ordinal, spec)
         SELECT t.id, $1, $2, 'queue', t.path, t.ordinal, t.spec::jsonb
         FROM unnest($3::uuid[], $4::text[], $5::integer[], $6::text[]) AS t (id, path, ordinal, spec)
         ON CONFLICT (namespace, function, kind, path, ordinal) DO UPDATE SET spec = excluded.spec
         RETURNING id",
        namespace.as_str(),
        manifest.name.as_str(),
        &ids,
        &paths,
        &ordinals,
        &specs,
    )
    .fetch_all(&mut *tx)
    .await?;
    let told = [&manifest.on_success, &manifest.on_failure].into_iter().flatten();
    paths.extend(told.filter_map(|destination| match destination {
        Destination::Queue { queue, broker: None } => Some(queue.clone()),
        _ => None,
    }));
    make(tx, namespace, &paths, now).await?;
    Ok(kept)
}

async fn make(
    tx: &mut PgConnection,
    namespace: &Namespace,
    queues: &[String],
    now: Timestamp,
) -> Result<u64, StoreError> {
    let made = sqlx::query!(
        "INSERT INTO queues (namespace, name, created_at) SELECT DISTINCT $1, q, $3::timestamptz FROM unnest($2::text[]) AS q ON CONFLICT DO NOTHING",
        namespace.as_str(),
        queues,
        now,
    );
    Ok(made.execute(tx).await?.rows_affected())
}

impl Store {
    /// Makes a queue; `false`: it was there.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn make_queue(
        &self,
        namespace: &Namespace,
        queue: &QueueName,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.pool().begin().await?;
        let made = make(&mut tx, namespace, &[queue.to_string()], now).await?;
        tx.commit().await?;
        Ok(made > 0)
    }
}
