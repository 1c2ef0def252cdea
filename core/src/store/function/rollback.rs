//! Going back: a function is pointed at a revision that it has pointed at before.

use sqlx::PgConnection;

use super::Function;
use super::deploy::{current, expect, lock, no_conflict, note, point, replace_triggers};
use crate::clock::{self, Timestamp};
use crate::manifest::Manifest;
use crate::name::{FunctionName, Namespace, RevisionDigest};
use crate::precondition::Precondition;
use crate::store::text::noun;
use crate::store::{Store, StoreError};

impl Store {
    /// Points a function at the revision before the current one, or at `to`; its triggers are those of that revision then.
    ///
    /// Without `to` what is gone back behind is withdrawn, so that the next rollback goes one further back. `allowed` says why
    /// a revision cannot be used any more.
    ///
    /// # Errors
    /// [`StoreError::Missing`] for a function or a revision that is not there, [`StoreError::Conflict`] when there is nothing to
    /// go back to or the revision cannot be used, [`StoreError::Precondition`] when the current revision is not as expected.
    pub async fn roll_back(
        &self,
        namespace: &Namespace,
        name: &FunctionName,
        to: Option<&RevisionDigest>,
        precondition: &Precondition,
        allowed: &(dyn Fn(&Manifest) -> Result<(), String> + Sync),
    ) -> Result<Function, StoreError> {
        let now = clock::now();
        let mut tx = self.pool().begin().await?;
        lock(&mut tx, namespace).await?;
        let current = current(&mut tx, namespace, name).await?;
        expect(name, precondition, current.as_ref())?;
        let current =
            current.ok_or_else(|| StoreError::Missing(format!("there is no function `{name}` in this namespace")))?;
        let digest = match to {
            Some(to) => to.clone(),
            None => withdraw(&mut tx, namespace, name, &current, now).await?,
        };
        let manifest = manifest(&mut tx, namespace, name, &digest).await?;
        allowed(&manifest).map_err(StoreError::Conflict)?;
        no_conflict(&mut tx, namespace, &manifest).await?;
        if point(&mut tx, namespace, name, &digest, now).await? && to.is_some() {
            note(&mut tx, namespace, name, &digest, now).await?;
        }
        replace_triggers(&mut tx, namespace, &manifest, now).await?;
        tx.commit().await?;
        self.as_changed(namespace, name).await
    }
}

/// Withdraws the current deployment, and returns the revision of the one before it.
async fn withdraw(
    tx: &mut PgConnection,
    namespace: &Namespace,
    name: &FunctionName,
    current: &RevisionDigest,
    now: Timestamp,
) -> Result<RevisionDigest, StoreError> {
    let before = sqlx::query!(
        r#"SELECT number, revision AS "revision: RevisionDigest" FROM deployments
           WHERE namespace = $1 AND function = $2 AND withdrawn_at IS NULL AND revision <> $3 ORDER BY number DESC LIMIT 1"#,
        namespace.as_str(),
        name.as_str(),
        current.as_str(),
    )
    .fetch_optional(&mut *tx)
    .await?;
    let before = before.ok_or_else(|| {
        StoreError::Conflict(format!(
            "function `{name}` has no revision before this one; `runlet revisions {name}` lists what it has, and --to names one"
        ))
    })?;
    sqlx::query!(
        "UPDATE deployments SET withdrawn_at = $4 WHERE namespace = $1 AND function = $2 AND number > $3 AND withdrawn_at IS NULL",
        namespace.as_str(),
        name.as_str(),
        before.number,
        now,
    )
    .execute(tx)
    .await?;
    Ok(before.revision)
}

/// The manifest of a revision of this function.
async fn manifest(
    tx: &mut PgConnection,
    namespace: &Namespace,
    name: &FunctionName,
    digest: &RevisionDigest,
) -> Result<Manifest, StoreError> {
    let manifest = sqlx::query_scalar!(
        "SELECT manifest FROM revisions WHERE namespace = $1 AND digest = $2 AND manifest ->> 'name' = $3",
        namespace.as_str(),
        digest.as_str(),
        name.as_str(),
    )
    .fetch_optional(tx)
    .await?;
    let manifest = manifest.ok_or_else(|| {
        StoreError::Missing(format!(
            "function `{name}` has no revision `{digest}`; `runlet revisions {name}` lists those it has"
        ))
    })?;
    noun("revisions", digest, manifest)
}
