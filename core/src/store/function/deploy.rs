//! Deploying and removing functions.

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Deployed, Function, NewRevision};
use crate::clock::{self, Timestamp};
use crate::id::TriggerId;
use crate::invocation::InvocationState;
use crate::manifest::{AdapterKind, Manifest, TriggerSpec, WebhookTrigger};
use crate::name::{FunctionName, Namespace, RevisionDigest, SecretName};
use crate::precondition::Precondition;
use crate::store::queue::Wakeup;
use crate::store::queue::cancel::close_waiting;
use crate::store::queue::news::notify;
use crate::store::text::{json, noun};
use crate::store::{Store, StoreError};

impl Store {
    /// Puts a revision on record and points the function at it; its triggers replace those of the former revision.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when a hook path is in use by another function with another adapter or secret,
    /// [`StoreError::Precondition`] when the current revision is not as the caller wants it to be.
    pub async fn deploy(&self, revision: NewRevision) -> Result<Deployed, StoreError> {
        let NewRevision { namespace, digest, manifest, precondition, .. } = &revision;
        one_signature_a_path(manifest)?;
        let now = clock::now();
        let mut tx = self.pool().begin().await?;
        lock(&mut tx, namespace).await?;
        let current = current(&mut tx, namespace, &manifest.name).await?;
        expect(&manifest.name, precondition, current.as_ref())?;
        no_conflict(&mut tx, namespace, manifest).await?;
        let new_revision = insert_revision(&mut tx, &revision, now).await?;
        if point(&mut tx, namespace, &manifest.name, digest, now).await? {
            note(&mut tx, namespace, &manifest.name, digest, now).await?;
        }
        replace_triggers(&mut tx, namespace, manifest, now).await?;
        tx.commit().await?;
        let function = self.as_changed(namespace, &manifest.name).await?;
        Ok(Deployed { function, new_revision })
    }

    /// The function after a change that this server made and that is committed.
    pub(super) async fn as_changed(&self, namespace: &Namespace, name: &FunctionName) -> Result<Function, StoreError> {
        self.inner.current.forget(namespace, name);
        self.function(namespace, name).await?.ok_or_else(|| {
            StoreError::Conflict(format!("function `{name}` was removed while it was being changed; deploy it again"))
        })
    }

    /// Removes a function, its triggers and its aliases; revisions and history stay. Returns whether it was there.
    /// Invocations of it that still wait are cancelled.
    ///
    /// # Errors
    /// [`StoreError::Precondition`] when the current revision is not as the caller wants it to be.
    pub async fn remove_function(
        &self,
        namespace: &Namespace,
        name: &FunctionName,
        precondition: &Precondition,
    ) -> Result<bool, StoreError> {
        let mut tx = self.pool().begin().await?;
        if *precondition != Precondition::None {
            // Only who asks for a condition waits for the deploys of others.
            lock(&mut tx, namespace).await?;
            let current = current(&mut tx, namespace, name).await?;
            expect(name, precondition, current.as_ref())?;
        }
        let removed =
            sqlx::query!("DELETE FROM functions WHERE namespace = $1 AND name = $2", namespace.as_str(), name.as_str())
                .execute(&mut *tx)
                .await?;
        // A statement of its own, with a later snapshot, so that it sees what was accepted until the row was gone.
        let waiting = sqlx::query_scalar!(
            "DELETE FROM queue WHERE namespace = $1 AND function = $2 AND lease_until IS NULL RETURNING invocation",
            namespace.as_str(),
            name.as_str(),
        )
        .fetch_all(&mut *tx)
        .await?;
        close_waiting(&mut tx, &waiting, InvocationState::Cancelled).await?;
        notify(&mut *tx, [Wakeup::Schedules]).await?;
        tx.commit().await?;
        self.inner.current.forget(namespace, name);
        Ok(removed.rows_affected() == 1)
    }
}

/// The current revision of a function, as the transaction sees it.
pub(super) async fn current(
    tx: &mut PgConnection,
    namespace: &Namespace,
    name: &FunctionName,
) -> Result<Option<RevisionDigest>, StoreError> {
    let current = sqlx::query_scalar!(
        r#"SELECT revision AS "revision: RevisionDigest" FROM functions WHERE namespace = $1 AND name = $2"#,
        namespace.as_str(),
        name.as_str(),
    )
    .fetch_optional(tx)
    .await?;
    Ok(current)
}

/// Refuses where the current revision is not what the caller wants it to be.
pub(super) fn expect(
    name: &FunctionName,
    precondition: &Precondition,
    current: Option<&RevisionDigest>,
) -> Result<(), StoreError> {
    if precondition.holds(current.map(RevisionDigest::as_str)) {
        return Ok(());
    }
    Err(StoreError::Precondition(match current {
        Some(current) => format!(
            "function `{name}` is at revision {current}, which is not what the request expects; look at what changed, then \
             send that revision in If-Match"
        ),
        None => format!("there is no function `{name}`, and the request expects one; leave If-Match out to make it"),
    }))
}

/// The webhooks of a manifest.
fn webhooks(manifest: &Manifest) -> impl Iterator<Item = &WebhookTrigger> {
    manifest.triggers.iter().filter_map(|trigger| match trigger {
        TriggerSpec::Webhook(spec) => Some(spec),
        TriggerSpec::Cron(_) | TriggerSpec::Queue(_) => None,
    })
}

/// A path has one adapter and one secret, within a manifest as over all functions: a delivery is verified once, before anybody reads it.
fn one_signature_a_path(manifest: &Manifest) -> Result<(), StoreError> {
    let mut seen: HashMap<&str, (AdapterKind, Option<&SecretName>)> = HashMap::new();
    for spec in webhooks(manifest) {
        let first = *seen.entry(spec.path.as_str()).or_insert((spec.adapter, spec.secret.as_ref()));
        if first != (spec.adapter, spec.secret.as_ref()) {
            return Err(StoreError::Conflict(format!(
                "two triggers of function `{}` on hook path `{}` differ in adapter or secret; give them the same, or another path",
                manifest.name, spec.path
            )));
        }
    }
    Ok(())
}

/// One deploy at a time in a namespace: two at once could each miss the other's hooks.
pub(super) async fn lock(tx: &mut PgConnection, namespace: &Namespace) -> Result<(), StoreError> {
    sqlx::query_scalar!("SELECT name FROM namespaces WHERE name = $1 FOR NO KEY UPDATE", namespace.as_str())
        .fetch_optional(tx)
        .await?
        .ok_or_else(|| StoreError::Conflict(format!("there is no namespace `{namespace}`; create it first")))?;
    Ok(())
}

pub(super) async fn no_conflict(
    tx: &mut PgConnection,
    namespace: &Namespace,
    manifest: &Manifest,
) -> Result<(), StoreError> {
    let paths: Vec<&str> = webhooks(manifest).map(|spec| spec.path.as_str()).collect();
    let others = sqlx::query!(
        r#"SELECT id AS "id: TriggerId", function, spec FROM triggers
           WHERE namespace = $1 AND kind = 'webhook' AND path = ANY($2) AND function <> $3"#,
        namespace.as_str(),
        &paths as &[&str],
        manifest.name.as_str(),
    )
    .fetch_all(tx)
    .await?;
    for other in others {
        let spec: WebhookTrigger = noun("triggers", &other.id, other.spec)?;
        let differs = |own: &&WebhookTrigger| {
            own.path == spec.path && (own.adapter, own.secret.as_ref()) != (spec.adapter, spec.secret.as_ref())
        };
        if webhooks(manifest).any(|own| differs(&own)) {
            return Err(StoreError::Conflict(format!(
                "hook path `{}` belongs to function `{}` with another adapter or secret; use the same ones, or another path",
                spec.path, other.function
            )));
        }
    }
    Ok(())
}

async fn insert_revision(tx: &mut PgConnection, revision: &NewRevision, now: Timestamp) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "INSERT INTO revisions (namespace, digest, manifest, archive, created_at) VALUES ($1, $2, $3::text::jsonb, $4, $5)
         ON CONFLICT DO NOTHING",
        revision.namespace.as_str(),
        revision.digest.as_str(),
        json(&revision.manifest),
        revision.archive.as_ref(),
        now,
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Points a function at a revision; returns whether it pointed elsewhere before.
pub(super) async fn point(
    tx: &mut PgConnection,
    namespace: &Namespace,
    name: &FunctionName,
    digest: &RevisionDigest,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "INSERT INTO functions AS f (namespace, name, revision, created_at, deployed_at) VALUES ($1, $2, $3, $4, $4)
         ON CONFLICT (namespace, name) DO UPDATE SET revision = excluded.revision, deployed_at = excluded.deployed_at
         WHERE f.revision <> excluded.revision",
        namespace.as_str(),
        name.as_str(),
        digest.as_str(),
        now,
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Puts on record that a function points at a revision from now on.
pub(super) async fn note(
    tx: &mut PgConnection,
    namespace: &Namespace,
    name: &FunctionName,
    digest: &RevisionDigest,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO deployments (namespace, function, revision, at) VALUES ($1, $2, $3, $4)",
        namespace.as_str(),
        name.as_str(),
        digest.as_str(),
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn replace_triggers(
    tx: &mut PgConnection,
    namespace: &Namespace,
    manifest: &Manifest,
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut ids: Vec<Uuid> = Vec::new();
    let (mut paths, mut ordinals, mut specs) = (Vec::new(), Vec::new(), Vec::new());
    let mut of_path: HashMap<&str, i32> = HashMap::new();
    for spec in webhooks(manifest) {
        let nth = of_path.entry(spec.path.as_str()).or_insert(0);
        ids.push(TriggerId::new().uuid());
        paths.push(spec.path.as_str());
        ordinals.push(*nth);
        specs.push(json(spec));
        *nth += 1;
    }
    let mut kept = sqlx::query_scalar!(
        "INSERT INTO triggers (id, namespace, function, kind, path, ordinal, spec)
         SELECT t.id, $1, $2, 'webhook', t.path, t.ordinal, t.spec::jsonb
         FROM unnest($3::uuid[], $4::text[], $5::integer[], $6::text[]) AS t (id, path, ordinal, spec)
         ON CONFLICT (namespace, function, kind, path, ordinal) DO UPDATE SET spec = excluded.spec
         RETURNING id",
        namespace.as_str(),
        manifest.name.as_str(),
        &ids,
        &paths as &[&str],
        &ordinals,
        &specs,
    )
    .fetch_all(&mut *tx)
    .await?;
    kept.extend(crate::store::cron::deploy::replace(tx, namespace, manifest, now).await?);
    kept.extend(crate::store::message::deploy::replace(tx, namespace, manifest, now).await?);
    sqlx::query!(
        "DELETE FROM triggers WHERE namespace = $1 AND function = $2 AND id <> ALL($3)",
        namespace.as_str(),
        manifest.name.as_str(),
        &kept,
    )
    .execute(tx)
    .await?;
    Ok(())
}
