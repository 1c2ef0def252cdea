//! Aliases: names that point at revisions of a function, each with its share of the invocations.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sqlx::PgConnection;
use utoipa::ToSchema;

use super::text::uncount;
use super::{Store, StoreError};
use crate::name::{AliasName, FunctionName, Namespace, RevisionDigest};
use crate::precondition::Precondition;

/// Most revisions that one alias points at.
pub const MOST_POINTS: usize = 10;
/// Largest weight.
pub const MOST_WEIGHT: u32 = 10_000;

/// A name that points at revisions of one function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Alias {
    /// Owner.
    pub namespace: Namespace,
    /// The function.
    pub function: FunctionName,
    /// The name.
    pub name: AliasName,
    /// What it points at, by revision.
    pub revisions: Vec<Share>,
}

/// A revision and how much it gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The revision.
    pub revision: RevisionDigest,
    /// Its share, in relation to the weights of the others.
    #[serde(default = "one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

impl Alias {
    /// Names the state it is in: another one when it points elsewhere.
    #[must_use]
    pub fn version(&self) -> String {
        let mut digest = Sha256::new();
        for share in &self.revisions {
            digest.update(format!("{}={};", share.revision, share.weight));
        }
        RevisionDigest::from_sha256(&digest.finalize().into()).hex()[..32].to_owned()
    }

    /// The revision that the next invocation gets, by weight and chance.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub fn pick(&self) -> Result<Option<&RevisionDigest>, getrandom::Error> {
        if let [only] = &self.revisions[..] {
            return Ok(Some(&only.revision));
        }
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes)?;
        Ok(self.at(u64::from_le_bytes(bytes)))
    }

    /// The revision at this point of the circle that the weights divide.
    fn at(&self, point: u64) -> Option<&RevisionDigest> {
        let total: u64 = self.revisions.iter().map(|share| u64::from(share.weight)).sum();
        let mut rest = point.checked_rem(total)?;
        self.revisions.iter().find_map(|share| match rest.checked_sub(u64::from(share.weight)) {
            None => Some(&share.revision),
            Some(left) => {
                rest = left;
                None
            }
        })
    }
}

impl Store {
    /// Up to `limit` aliases of a function behind `after`, by name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn aliases(
        &self,
        namespace: &Namespace,
        function: &FunctionName,
        after: Option<&AliasName>,
        limit: i64,
    ) -> Result<Vec<Alias>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT name AS "name: AliasName", array_agg(revision ORDER BY revision) AS "revisions!: Vec<RevisionDigest>",
                   array_agg(weight ORDER BY revision) AS "weights!"
               FROM aliases WHERE namespace = $1 AND function = $2 AND name COLLATE "C" > $3
               GROUP BY name ORDER BY name COLLATE "C" LIMIT $4"#,
            namespace.as_str(),
            function.as_str(),
            after.map_or("", AliasName::as_str),
            limit.max(0),
        )
        .fetch_all(self.pool())
        .await?;
        Ok(rows.into_iter().map(|row| row.alias(namespace, function)).collect())
    }

    /// One alias.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn alias(
        &self,
        namespace: &Namespace,
        function: &FunctionName,
        name: &AliasName,
    ) -> Result<Option<Alias>, StoreError> {
        let mut connection = self.pool().acquire().await?;
        read(&mut connection, namespace, function, name).await
    }

    /// Points an alias at revisions, which replace those it pointed at. Returns whether it is new.
    ///
    /// # Errors
    /// [`StoreError::Missing`] for a function that is not there or a revision that is not one of it, [`StoreError::Precondition`]
    /// when the alias is not as the caller wants it to be.
    pub async fn set_alias(&self, alias: &Alias, precondition: &Precondition) -> Result<bool, StoreError> {
        let Alias { namespace, function, name, revisions } = alias;
        let mut tx = self.pool().begin().await?;
        lock(&mut tx, namespace, function).await?;
        let before = read(&mut tx, namespace, function, name).await?;
        expect(name, precondition, before.as_ref())?;
        let digests: Vec<&str> = revisions.iter().map(|share| share.revision.as_str()).collect();
        let weights: Vec<i32> = revisions.iter().map(|share| i32::try_from(share.weight).unwrap_or(i32::MAX)).collect();
        let unknown = sqlx::query_scalar!(
            r#"SELECT want AS "want!" FROM unnest($3::text[]) AS want
               WHERE NOT EXISTS (SELECT FROM revisions r WHERE r.namespace = $1 AND r.digest = want AND r.manifest ->> 'name' = $2)"#,
            namespace.as_str(),
            function.as_str(),
            &digests as &[&str],
        )
        .fetch_optional(&mut *tx)
        .await?;
        if let Some(unknown) = unknown {
            return Err(StoreError::Missing(format!(
                "function `{function}` has no revision `{unknown}`; `runlet revisions {function}` lists those it has"
            )));
        }
        delete(&mut tx, namespace, function, name).await?;
        sqlx::query!(
            "INSERT INTO aliases (namespace, function, name, revision, weight)
             SELECT $1, $2, $3, t.revision, t.weight FROM unnest($4::text[], $5::integer[]) AS t (revision, weight)",
            namespace.as_str(),
            function.as_str(),
            name.as_str(),
            &digests as &[&str],
            &weights,
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        self.inner.current.forget(namespace, function);
        Ok(before.is_none())
    }

    /// Removes an alias; returns whether it was there.
    ///
    /// # Errors
    /// [`StoreError::Missing`] for a function that is not there, [`StoreError::Precondition`] when the alias is not as the
    /// caller wants it to be.
    pub async fn remove_alias(
        &self,
        namespace: &Namespace,
        function: &FunctionName,
        name: &AliasName,
        precondition: &Precondition,
    ) -> Result<bool, StoreError> {
        let mut tx = self.pool().begin().await?;
        lock(&mut tx, namespace, function).await?;
        let before = read(&mut tx, namespace, function, name).await?;
        if before.is_none() {
            return Ok(false);
        }
        expect(name, precondition, before.as_ref())?;
        delete(&mut tx, namespace, function, name).await?;
        tx.commit().await?;
        self.inner.current.forget(namespace, function);
        Ok(true)
    }
}

/// One change of a function's aliases at a time, and none while the function is removed.
async fn lock(tx: &mut PgConnection, namespace: &Namespace, function: &FunctionName) -> Result<(), StoreError> {
    let found = sqlx::query_scalar!(
        "SELECT name FROM functions WHERE namespace = $1 AND name = $2 FOR NO KEY UPDATE",
        namespace.as_str(),
        function.as_str(),
    )
    .fetch_optional(tx)
    .await?;
    found.map(drop).ok_or_else(|| StoreError::Missing(format!("there is no function `{function}` in this namespace")))
}

async fn read(
    connection: &mut PgConnection,
    namespace: &Namespace,
    function: &FunctionName,
    name: &AliasName,
) -> Result<Option<Alias>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT name AS "name: AliasName", array_agg(revision ORDER BY revision) AS "revisions!: Vec<RevisionDigest>",
               array_agg(weight ORDER BY revision) AS "weights!"
           FROM aliases WHERE namespace = $1 AND function = $2 AND name = $3 GROUP BY name"#,
        namespace.as_str(),
        function.as_str(),
        name.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| row.alias(namespace, function)))
}

async fn delete(
    tx: &mut PgConnection,
    namespace: &Namespace,
    function: &FunctionName,
    name: &AliasName,
) -> Result<(), StoreError> {
    sqlx::query!(
        "DELETE FROM aliases WHERE namespace = $1 AND function = $2 AND name = $3",
        namespace.as_str(),
        function.as_str(),
        name.as_str(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

fn expect(name: &AliasName, precondition: &Precondition, before: Option<&Alias>) -> Result<(), StoreError> {
    let version = before.map(Alias::version);
    if precondition.holds(version.as_deref()) {
        return Ok(());
    }
    Err(StoreError::Precondition(match before {
        Some(_) => format!(
            "alias `{name}` is not in the state that the request expects; look at it, then send its ETag in If-Match"
        ),
        None => format!("there is no alias `{name}`, and the request expects one; leave If-Match out to make it"),
    }))
}

/// The rows of one alias.
struct Row {
    name: AliasName,
    revisions: Vec<RevisionDigest>,
    weights: Vec<i32>,
}

impl Row {
    fn alias(self, namespace: &Namespace, function: &FunctionName) -> Alias {
        let weights = self.weights.into_iter().map(|weight| u32::try_from(uncount(i64::from(weight))).unwrap_or(1));
        let shares = self.revisions.into_iter().zip(weights);
        Alias {
            namespace: namespace.clone(),
            function: function.clone(),
            name: self.name,
            revisions: shares.map(|(revision, weight)| Share { revision, weight }).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alias(weights: &[u32]) -> Alias {
        let share = |(n, weight): (usize, &u32)| Share {
            revision: RevisionDigest::from_sha256(&[u8::try_from(n).expect("few"); 32]),
            weight: *weight,
        };
        Alias {
            namespace: Namespace::default_namespace(),
            function: FunctionName::new("f").expect("a name"),
            name: AliasName::new("live").expect("a name"),
            revisions: weights.iter().enumerate().map(share).collect(),
        }
    }

    #[test]
    fn every_revision_gets_its_share_of_the_circle() {
        let canary = alias(&[95, 5]);
        let first = (0..1000).filter(|point| canary.at(*point) == Some(&canary.revisions[0].revision)).count();
        assert_eq!(first, 950);
        assert_eq!(alias(&[]).at(7), None);
        let only = alias(&[3]);
        assert_eq!(only.pick().expect("no chance is needed"), Some(&only.revisions[0].revision));
    }

    #[test]
    fn another_direction_is_another_version() {
        let versions = [alias(&[1]), alias(&[2]), alias(&[1, 1])].map(|alias| alias.version());
        assert!(versions[0] != versions[1] && versions[1] != versions[2]);
        assert_eq!(versions[0], alias(&[1]).version());
    }
}
