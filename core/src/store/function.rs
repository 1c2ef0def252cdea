//! Functions and their revisions.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError};
use crate::clock::Timestamp;
use crate::id::TriggerId;
use crate::manifest::{AdapterKind, Manifest, WebhookTrigger};
use crate::name::{FunctionName, HookPath, Namespace, RevisionDigest};

/// A function and its current revision.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Function {
    /// Owner.
    pub namespace: Namespace,
    /// Name.
    pub name: FunctionName,
    /// The revision that new invocations get.
    pub revision: RevisionDigest,
    /// What that revision says.
    pub manifest: Manifest,
    /// When the function was first deployed.
    pub created_at: Timestamp,
    /// When its current revision was deployed.
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

impl Store {
    /// Puts a revision on record and points the function at it; its triggers replace those of the former revision.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when a hook path is in use by another function with another adapter or secret.
    pub async fn deploy(&self, revision: NewRevision) -> Result<Deployed, StoreError> {
        todo!()
    }

    /// The function of that name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn function(&self, namespace: &Namespace, name: &FunctionName) -> Result<Option<Function>, StoreError> {
        todo!()
    }

    /// Up to `limit` functions behind `after`, by name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn functions(&self, namespace: &Namespace, after: Option<&FunctionName>, limit: i64) -> Result<Vec<Function>, StoreError> {
        todo!()
    }

    /// Removes a function and its triggers; revisions and history stay. Returns whether it was there.
    /// Invocations of it that still wait are cancelled.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn remove_function(&self, namespace: &Namespace, name: &FunctionName) -> Result<bool, StoreError> {
        todo!()
    }

    /// The manifest of a revision.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn revision(&self, namespace: &Namespace, digest: &RevisionDigest) -> Result<Option<Manifest>, StoreError> {
        todo!()
    }

    /// The archive of a revision.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn archive(&self, namespace: &Namespace, digest: &RevisionDigest) -> Result<Option<Bytes>, StoreError> {
        todo!()
    }

    /// The triggers on a hook path, with the one adapter and secret that they share.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn hook(&self, namespace: &Namespace, path: &HookPath) -> Result<Vec<HookTrigger>, StoreError> {
        todo!()
    }
}
