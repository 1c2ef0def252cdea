//! Manifests of revisions, kept in memory: a revision never changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runlet_core::manifest::Manifest;
use runlet_core::name::{Namespace, RevisionDigest};
use runlet_core::store::function::Function;
use runlet_core::store::{Store, StoreError};

/// Most manifests that are kept; past that all are forgotten and read again.
const MOST: usize = 4096;

type Known = HashMap<(Namespace, RevisionDigest), Arc<Manifest>>;

/// What is known.
#[derive(Debug)]
pub(super) struct Manifests {
    store: Store,
    known: Mutex<Known>,
}

impl Manifests {
    pub(super) fn new(store: Store) -> Self {
        Self { store, known: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The manifest of a function's current revision.
    pub(super) fn of(&self, function: &Function) -> Arc<Manifest> {
        let key = (function.namespace.clone(), function.revision.clone());
        if let Some(manifest) = self.lock().get(&key) {
            return Arc::clone(manifest);
        }
        let manifest = Arc::new(function.manifest.clone());
        self.keep(key, &manifest);
        manifest
    }

    /// The manifest of a revision; `None` if it is not on record.
    pub(super) async fn get(
        &self,
        namespace: &Namespace,
        digest: &RevisionDigest,
    ) -> Result<Option<Arc<Manifest>>, StoreError> {
        let key = (namespace.clone(), digest.clone());
        if let Some(manifest) = self.lock().get(&key) {
            return Ok(Some(Arc::clone(manifest)));
        }
        let found = self.store.revision(namespace, digest).await?.map(Arc::new);
        if let Some(manifest) = &found {
            self.keep(key, manifest);
        }
        Ok(found)
    }

    fn keep(&self, key: (Namespace, RevisionDigest), manifest: &Arc<Manifest>) {
        let mut known = self.lock();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(key, Arc::clone(manifest));
    }
}
