//! Deliveries: raw webhooks as they were received, with the verdict on them.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError};
use crate::clock::Timestamp;
use crate::engine::{Accepted, Submission, Submitted};
use crate::id::{DeliveryId, InvocationId};
use crate::name::{HookPath, Namespace};

/// What was decided about a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    pub received_at: Timestamp,
}

impl Store {
    /// Commits a submission: delivery, dedup keys, invocations and queue rows in one transaction.
    ///
    /// A delivery whose invocations are all repeats is recorded with verdict `duplicate`.
    /// The outer `Err` means that nothing is on record. An unknown function is `Ok(Err(name))`: nothing is on record either.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn accept(&self, submission: Submission) -> Result<Result<Submitted, crate::name::FunctionName>, StoreError> {
        let _ = Accepted::clone;
        todo!()
    }

    /// Puts a refused or ignored delivery on record. To keep strangers from filling the disk, the bodies kept for
    /// verdict `bad_signature` are bounded per hook and day: past `refused_body_budget` bytes the body is left out.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn refuse_delivery(&self, delivery: NewDelivery, refused_body_budget: u64) -> Result<DeliveryId, StoreError> {
        todo!()
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
        todo!()
    }

    /// One delivery.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn delivery(&self, namespace: &Namespace, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        todo!()
    }

    /// The body of a delivery, byte for byte as received.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn delivery_body(&self, namespace: &Namespace, id: DeliveryId) -> Result<Option<Bytes>, StoreError> {
        todo!()
    }
}
