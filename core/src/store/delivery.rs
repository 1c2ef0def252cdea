//! Deliveries: raw webhooks as they were received, with the verdict on them. Those that bring work come in by `Store::accept`.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::spill::Placed;
use super::text::{clean, count, json, noun, uncount, word};
use super::{Store, StoreError, answered};
use crate::clock::{self, Timestamp};
use crate::id::{DeliveryId, InvocationId};
use crate::name::{HookPath, Namespace};

/// What was decided about a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Verified, and at least one rule took it.
    Accepted,
    /// Verified; its id was seen before and that invocation lives or has succeeded.
    Duplicate,
    /// Verified, and no rule wants it.
    Ignored,
    /// The signature is missing or wrong.
    BadSignature,
    /// Verified, and the body is not what it says it is.
    BadBody,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 5] = [Self::Accepted, Self::Duplicate, Self::Ignored, Self::BadSignature, Self::BadBody];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Ignored => "ignored",
            Self::BadSignature => "bad_signature",
            Self::BadBody => "bad_body",
        }
    }

    /// The verdict named `text`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.as_str() == text)
    }
}

/// A delivery to put on record.
#[derive(Debug, Clone)]
pub struct NewDelivery {
    /// Owner of the hook.
    pub namespace: Namespace,
    /// The hook.
    pub path: HookPath,
    /// Who read it.
    pub adapter: &'static str,
    /// The sender's id of it, for example `X-GitHub-Delivery`.
    pub provider_id: Option<String>,
    /// The event's name, where the adapter found one.
    pub event: Option<String>,
    /// Headers as received, names in lower case; values of credential headers are replaced by a keyed fingerprint.
    pub headers: BTreeMap<String, String>,
    /// Address of the sender.
    pub source: String,
    /// The raw body. Bodies of refused deliveries may be cut or empty: `body_size` tells the true size.
    pub body: Bytes,
    /// Size of the body as received, bytes.
    pub body_size: u64,
    /// What was decided.
    pub verdict: Verdict,
    /// For each trigger of the hook: what matched, or why not; for refused ones: why.
    pub reasons: Vec<String>,
}

/// A delivery on record; the body is fetched on its own.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Delivery {
    /// Its id.
    pub id: DeliveryId,
    /// Owner of the hook.
    pub namespace: Namespace,
    /// The hook.
    pub path: HookPath,
    /// Who read it.
    pub adapter: String,
    /// The sender's id of it.
    pub provider_id: Option<String>,
    /// The event's name.
    pub event: Option<String>,
    /// Headers, credentials fingerprinted.
    pub headers: BTreeMap<String, String>,
    /// Address of the sender.
    pub source: String,
    /// Size of the body as received, bytes.
    pub body_size: u64,
    /// Bytes of the body that were kept.
    pub body_kept: u64,
    /// What was decided.
    pub verdict: Verdict,
    /// What matched, or why not.
    pub reasons: Vec<String>,
    /// Its invocations: new ones, or those that a repeated id names.
    pub invocations: Vec<InvocationId>,
    /// When it was received.
    #[schema(value_type = String, format = DateTime)]
    pub received_at: Timestamp,
}

impl Store {
    /// Puts a refused or ignored delivery on record. To keep strangers from filling the disk, the bodies that are kept of
    /// their requests are bounded per hook and day: past `body_budget` bytes, where there is one, the body is left out.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn refuse_delivery(
        &self,
        delivery: NewDelivery,
        body_budget: Option<u64>,
    ) -> Result<DeliveryId, StoreError> {
        answered(self.put_refused(delivery, body_budget)).await
    }

    async fn put_refused(&self, delivery: NewDelivery, body_budget: Option<u64>) -> Result<DeliveryId, StoreError> {
        let id = DeliveryId::new();
        let mut tx = self.pool().begin().await?;
        let keep = match body_budget.filter(|_| !delivery.body.is_empty()) {
            Some(budget) => within_budget(&mut tx, &delivery, budget).await?,
            None => true,
        };
        let body = if keep { delivery.body.clone() } else { Bytes::new() };
        let body = self.place(id.uuid(), delivery.namespace.as_str(), &body).await?;
        insert_delivery(&mut tx, id, &delivery, &body, &[]).await?;
        tx.commit().await?;
        Ok(id)
    }

    /// Up to `limit` deliveries older than `before`, newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn deliveries(
        &self,
        namespace: &Namespace,
        path: Option<&HookPath>,
        before: Option<DeliveryId>,
        limit: i64,
    ) -> Result<Vec<Delivery>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT id AS "id: DeliveryId", namespace AS "namespace: Namespace", path AS "path: HookPath", adapter, provider_id, event,
                   headers, source, body_size, COALESCE(split_part(body_file, '/', 3)::bigint, octet_length(body)) AS "body_kept!", verdict, reasons, invocations, received_at
               FROM deliveries
               WHERE namespace = $1 AND ($2::text IS NULL OR path = $2) AND id < $3
               ORDER BY id DESC LIMIT $4"#,
            namespace.as_str(),
            path.map(HookPath::as_str),
            before.map_or(Uuid::max(), DeliveryId::uuid),
            limit.max(0),
        )
        .fetch_all(self.pool())
        .await?;
        rows.into_iter().map(Row::delivery).collect()
    }

    /// One delivery.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn delivery(&self, namespace: &Namespace, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        let row = sqlx::query_as!(
            Row,
            r#"SELECT id AS "id: DeliveryId", namespace AS "namespace: Namespace", path AS "path: HookPath", adapter, provider_id, event,
                   headers, source, body_size, COALESCE(split_part(body_file, '/', 3)::bigint, octet_length(body)) AS "body_kept!", verdict, reasons, invocations, received_at
               FROM deliveries WHERE namespace = $1 AND id = $2"#,
            namespace.as_str(),
            id.uuid(),
        )
        .fetch_optional(self.pool())
        .await?;
        row.map(Row::delivery).transpose()
    }

    /// The body of a delivery, byte for byte as received.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn delivery_body(&self, namespace: &Namespace, id: DeliveryId) -> Result<Option<Bytes>, StoreError> {
        let row = sqlx::query!(
            "SELECT body, body_file FROM deliveries WHERE namespace = $1 AND id = $2",
            namespace.as_str(),
            id.uuid()
        )
        .fetch_optional(self.pool())
        .await?;
        let Some(row) = row else { return Ok(None) };
        self.fetch(id.uuid(), namespace.as_str(), row.body, row.body_file.as_deref()).await.map(Some)
    }
}

/// Takes the body's size from what is left of the hook's budget of today; `false` where it does not fit.
async fn within_budget(tx: &mut PgConnection, delivery: &NewDelivery, budget: u64) -> Result<bool, StoreError> {
    let size = count(delivery.body.len() as u64);
    if size > count(budget) {
        return Ok(false);
    }
    let kept = sqlx::query_scalar!(
        "INSERT INTO refused_bodies AS r (namespace, path, day, bytes) VALUES ($1, $2, $3, $4)
         ON CONFLICT (namespace, path, day) DO UPDATE SET bytes = r.bytes + excluded.bytes WHERE r.bytes + excluded.bytes <= $5
         RETURNING bytes",
        delivery.namespace.as_str(),
        delivery.path.as_str(),
        clock::now().date_naive(),
        size,
        count(budget),
    )
    .fetch_optional(tx)
    .await?;
    Ok(kept.is_some())
}

/// Puts a delivery on record, with as much of its body as is given apart.
pub(super) async fn insert_delivery(
    tx: &mut PgConnection,
    id: DeliveryId,
    delivery: &NewDelivery,
    body: &Placed,
    invocations: &[Uuid],
) -> Result<(), StoreError> {
    let provider_id = delivery.provider_id.as_deref().map(clean);
    let event = delivery.event.as_deref().map(clean);
    let source = clean(&delivery.source);
    let reasons: Vec<String> = delivery.reasons.iter().map(|reason| clean(reason).into_owned()).collect();
    sqlx::query!(
        "INSERT INTO deliveries (id, namespace, path, adapter, provider_id, event, headers, source, body, body_size, verdict, reasons,
             invocations, received_at, body_file)
         VALUES ($1, $2, $3, $4, $5, $6, $7::text::jsonb, $8, $9, $10, $11, $12, $13, $14, $15)",
        id.uuid(),
        delivery.namespace.as_str(),
        delivery.path.as_str(),
        delivery.adapter,
        provider_id.as_deref(),
        event.as_deref(),
        json(&delivery.headers),
        source.as_ref(),
        body.bytes.as_ref(),
        count(delivery.body_size),
        delivery.verdict.as_str(),
        &reasons,
        invocations,
        clock::now(),
        body.file.as_deref(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A row of `deliveries`, without the body.
struct Row {
    id: DeliveryId,
    namespace: Namespace,
    path: HookPath,
    adapter: String,
    provider_id: Option<String>,
    event: Option<String>,
    headers: Value,
    source: String,
    body_size: i64,
    body_kept: i64,
    verdict: String,
    reasons: Vec<String>,
    invocations: Vec<Uuid>,
    received_at: Timestamp,
}

impl Row {
    fn delivery(self) -> Result<Delivery, StoreError> {
        Ok(Delivery {
            id: self.id,
            headers: noun("deliveries", &self.id, self.headers)?,
            verdict: word("deliveries", &self.id, &self.verdict)?,
            namespace: self.namespace,
            path: self.path,
            adapter: self.adapter,
            provider_id: self.provider_id,
            event: self.event,
            source: self.source,
            body_size: uncount(self.body_size),
            body_kept: uncount(self.body_kept),
            reasons: self.reasons,
            invocations: self.invocations.into_iter().map(InvocationId::from).collect(),
            received_at: self.received_at,
        })
    }
}
