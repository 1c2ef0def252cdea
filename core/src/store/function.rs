//! Functions and their revisions: the nouns, and reading them.

mod deploy;
pub mod revision;
mod rollback;
mod settings;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::text::noun;
use super::{Store, StoreError, answered};
use crate::clock::Timestamp;
use crate::id::TriggerId;
use crate::limits::Limits;
use crate::manifest::{Manifest, WebhookTrigger};
use crate::name::{FunctionName, HookPath, Namespace, RevisionDigest};
use crate::precondition::Precondition;
use crate::settings::Settings;
use crate::unit::ByteSize;

/// A function and its current revision.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Function {
    /// Owner.
    pub namespace: Namespace,
    /// Name.
    pub name: FunctionName,
    /// The revision that new invocations get.
    pub revision: RevisionDigest,
    /// What that revision says: its function.toml.
    #[schema(value_type = Object)]
    pub manifest: Manifest,
    /// What is set beside it, by `runlet set`.
    #[serde(default, skip_serializing_if = "Settings::is_empty")]
    pub settings: Settings,
    /// When the function was first deployed.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When its current revision was deployed.
    #[schema(value_type = String, format = DateTime)]
    pub deployed_at: Timestamp,
}

/// A revision to put on record.
#[derive(Debug, Clone)]
pub struct NewRevision {
    /// Owner.
    pub namespace: Namespace,
    /// Content address of `archive`.
    pub digest: RevisionDigest,
    /// The checked manifest.
    pub manifest: Manifest,
    /// The normalised archive.
    pub archive: Bytes,
    /// What the function's current revision has to be for the deploy to be done.
    pub precondition: Precondition,
}

/// What a deploy did.
#[derive(Debug, Clone)]
pub struct Deployed {
    /// The function as it is now.
    pub function: Function,
    /// Whether the revision is new to the namespace.
    pub new_revision: bool,
}

/// A webhook trigger on record.
#[derive(Debug, Clone)]
pub struct HookTrigger {
    /// Its id: it stays the same for (namespace, function, path) over deploys.
    pub id: TriggerId,
    /// The function it starts.
    pub function: FunctionName,
    /// What it wants.
    pub spec: WebhookTrigger,
}

impl Function {
    /// The limits of its sandboxes: those of its revision, with what is set over them.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.settings.over(self.manifest.limits, self.manifest.runtime)
    }
}

impl Store {
    /// The function of that name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn function(&self, namespace: &Namespace, name: &FunctionName) -> Result<Option<Function>, StoreError> {
        let row = sqlx::query_as!(
            Row,
            r#"SELECT f.namespace AS "namespace: Namespace", f.name AS "name: FunctionName", f.revision AS "revision: RevisionDigest",
                   r.manifest, f.created_at, f.deployed_at, s.memory AS "memory?", s.cpu AS "cpu?", s.pids AS "pids?", s.set_at AS "set_at?"
               FROM functions f JOIN revisions r ON r.namespace = f.namespace AND r.digest = f.revision
               LEFT JOIN function_settings s ON s.namespace = f.namespace AND s.function = f.name
               WHERE f.namespace = $1 AND f.name = $2"#,
            namespace.as_str(),
            name.as_str(),
        )
        .fetch_optional(self.pool())
        .await?;
        row.map(Row::function).transpose()
    }

    /// Up to `limit` functions behind `after`, by name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn functions(
        &self,
        namespace: &Namespace,
        after: Option<&FunctionName>,
        limit: i64,
    ) -> Result<Vec<Function>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT f.namespace AS "namespace: Namespace", f.name AS "name: FunctionName", f.revision AS "revision: RevisionDigest",
                   r.manifest, f.created_at, f.deployed_at, s.memory AS "memory?", s.cpu AS "cpu?", s.pids AS "pids?", s.set_at AS "set_at?"
               FROM functions f JOIN revisions r ON r.namespace = f.namespace AND r.digest = f.revision
               LEFT JOIN function_settings s ON s.namespace = f.namespace AND s.function = f.name
               WHERE f.namespace = $1 AND f.name COLLATE "C" > $2
               ORDER BY f.name COLLATE "C" LIMIT $3"#,
            namespace.as_str(),
            after.map_or("", FunctionName::as_str),
            limit.max(0),
        )
        .fetch_all(self.pool())
        .await?;
        rows.into_iter().map(Row::function).collect()
    }

    /// The functions of which sandboxes are to be kept ready, whose current revision has a `min_warm`; and of each whether aliases lead to
    /// other revisions.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn kept_warm(&self) -> Result<Vec<(Function, bool)>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT f.namespace AS "namespace: Namespace", f.name AS "name: FunctionName", f.revision AS "revision: RevisionDigest",
                   r.manifest, f.created_at, f.deployed_at, s.memory AS "memory?", s.cpu AS "cpu?", s.pids AS "pids?", s.set_at AS "set_at?",
                   EXISTS (SELECT FROM aliases a WHERE a.namespace = f.namespace AND a.function = f.name) AS "aliased!"
               FROM revisions r JOIN functions f ON f.namespace = r.namespace AND f.name = r.manifest ->> 'name' AND f.revision = r.digest
               LEFT JOIN function_settings s ON s.namespace = f.namespace AND s.function = f.name
               WHERE r.manifest ? 'min_warm'"#
        );
        let rows = rows.fetch_all(self.pool()).await?.into_iter().map(|row| {
            let aliased = row.aliased;
            let row = Row {
                namespace: row.namespace,
                name: row.name,
                revision: row.revision,
                manifest: row.manifest,
                created_at: row.created_at,
                deployed_at: row.deployed_at,
                memory: row.memory,
                cpu: row.cpu,
                pids: row.pids,
                set_at: row.set_at,
            };
            Ok((row.function()?, aliased))
        });
        rows.collect()
    }

    /// The manifest of a revision.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn revision(
        &self,
        namespace: &Namespace,
        digest: &RevisionDigest,
    ) -> Result<Option<Manifest>, StoreError> {
        let manifest = sqlx::query_scalar!(
            "SELECT manifest FROM revisions WHERE namespace = $1 AND digest = $2",
            namespace.as_str(),
            digest.as_str(),
        )
        .fetch_optional(self.pool())
        .await?;
        manifest.map(|manifest| noun("revisions", digest, manifest)).transpose()
    }

    /// The archive of a revision.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn archive(&self, namespace: &Namespace, digest: &RevisionDigest) -> Result<Option<Bytes>, StoreError> {
        let archive = sqlx::query_scalar!(
            "SELECT archive FROM revisions WHERE namespace = $1 AND digest = $2",
            namespace.as_str(),
            digest.as_str(),
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(archive.map(Bytes::from))
    }

    /// The triggers on a hook path, with the one adapter and secret that they share.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn hook(&self, namespace: &Namespace, path: &HookPath) -> Result<Vec<HookTrigger>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT id AS "id: TriggerId", function AS "function: FunctionName", spec
               FROM triggers WHERE namespace = $1 AND path = $2 AND kind = 'webhook' ORDER BY function, ordinal"#,
            namespace.as_str(),
            path.as_str(),
        )
        .fetch_all(self.pool());
        let rows = answered(async { Ok(rows.await?) }).await?;
        rows.into_iter()
            .map(|row| {
                let spec = noun("triggers", &row.id, row.spec)?;
                Ok(HookTrigger { id: row.id, function: row.function, spec })
            })
            .collect()
    }
}

/// A row of `functions`, with the manifest of its revision.
struct Row {
    namespace: Namespace,
    name: FunctionName,
    revision: RevisionDigest,
    manifest: Value,
    created_at: Timestamp,
    deployed_at: Timestamp,
    memory: Option<i64>,
    cpu: Option<f64>,
    pids: Option<i32>,
    set_at: Option<Timestamp>,
}

impl Row {
    fn function(self) -> Result<Function, StoreError> {
        let Self { namespace, name, revision, manifest, created_at, deployed_at, memory, cpu, pids, set_at } = self;
        let manifest = noun("revisions", &revision, manifest)?;
        let settings = settings(memory, cpu, pids, set_at);
        Ok(Function { namespace, name, revision, manifest, settings, created_at, deployed_at })
    }
}

/// Settings as they are on record.
fn settings(memory: Option<i64>, cpu: Option<f64>, pids: Option<i32>, set_at: Option<Timestamp>) -> Settings {
    Settings {
        memory: memory.map(|memory| ByteSize(memory.unsigned_abs())),
        cpu,
        pids: pids.map(i32::unsigned_abs),
        set_at,
    }
}
