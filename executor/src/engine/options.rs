//! What the engine of a server is told by its configuration.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use runlet_core::disk::Disk;
use runlet_core::name::Namespace;
use runlet_core::secret::Secrets;
use runlet_core::store::retention::Retention;
use runlet_core::unit::ByteSize;

use crate::stems::StemCounts;

/// What the engine of a server is told by its configuration.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Name of the server: claims and executions are its.
    pub server: String,
    /// Where revisions are unpacked.
    pub revisions_dir: PathBuf,
    /// Memory for sandboxes.
    pub memory: ByteSize,
    /// Sandboxes at a time.
    pub max_sandboxes: u32,
    /// Synchronous calls that may wait for a sandbox.
    pub max_waiting: u32,
    /// Asynchronous work that may wait, per namespace.
    pub max_queued: u32,
    /// What share of the host each namespace has when all of them want it; 1 where nothing else is said.
    pub weights: HashMap<Namespace, u32>,
    /// Sandboxes that are started ahead.
    pub stems: StemCounts,
    /// A sandbox that is idle for so long is destroyed.
    pub idle: Duration,
    /// The largest result, bytes.
    pub max_result: usize,
    /// Most output that is kept of an execution, bytes.
    pub max_log: u64,
    /// How long a claim lasts unless it is renewed.
    pub lease: Duration,
    /// How long a command in a leased sandbox that is cancelled may take to end by itself.
    pub kill_grace: Duration,
    /// How long history is kept.
    pub retention: Retention,
    /// Where there must be room before anything new is taken.
    pub disk: Disk,
    /// Where secrets are looked up.
    pub secrets: Arc<dyn Secrets>,
}
