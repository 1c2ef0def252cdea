//! The revisions of a function, as a list.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::Timestamp;
use crate::name::{AliasName, FunctionName, Namespace, RevisionDigest};
use crate::store::text::uncount;
use crate::store::{Store, StoreError};

/// A revision as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Revision {
    /// Its content address.
    pub revision: RevisionDigest,
    /// Whether new invocations get it.
    pub current: bool,
    /// The aliases that point at it.
    pub aliases: Vec<AliasName>,
    /// How its code is run.
    pub runtime: String,
    /// Size of its archive, bytes.
    pub size: u64,
    /// When it was first deployed.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When the function was last pointed at it; `None`: not since the function was made anew.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deployed_at: Option<Timestamp>,
}

impl Store {
    /// Up to `limit` revisions of a function, newest first, older than `before`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn revisions(
        &self,
        namespace: &Namespace,
        function: &FunctionName,
        before: Option<&RevisionDigest>,
        limit: i64,
    ) -> Result<Vec<Revision>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT r.digest AS "digest: RevisionDigest", r.digest = f.revision AS "current!", r.manifest ->> 'runtime' AS "runtime!",
                   octet_length(r.archive)::bigint AS "size!", r.created_at,
                   (SELECT max(d.at) FROM deployments d
                    WHERE d.namespace = r.namespace AND d.function = f.name AND d.revision = r.digest) AS deployed_at,
                   ARRAY(SELECT a.name FROM aliases a
                    WHERE a.namespace = r.namespace AND a.function = f.name AND a.revision = r.digest ORDER BY a.name)
                       AS "aliases!: Vec<AliasName>"
               FROM functions f JOIN revisions r ON r.namespace = f.namespace AND r.manifest ->> 'name' = f.name
               WHERE f.namespace = $1 AND f.name = $2 AND ($3::text IS NULL OR (r.created_at, r.digest)
                   < (SELECT b.created_at, b.digest FROM revisions b WHERE b.namespace = $1 AND b.digest = $3))
               ORDER BY r.created_at DESC, r.digest DESC LIMIT $4"#,
            namespace.as_str(),
            function.as_str(),
            before.map(RevisionDigest::as_str),
            limit.max(0),
        )
        .fetch_all(self.pool())
        .await?;
        let revisions = rows.into_iter().map(|row| Revision {
            revision: row.digest,
            current: row.current,
            aliases: row.aliases,
            runtime: row.runtime,
            size: uncount(row.size),
            created_at: row.created_at,
            deployed_at: row.deployed_at,
        });
        Ok(revisions.collect())
    }
}
