//! What is wanted, and what there is.

use runlet_core::name::{FunctionName, Namespace, RevisionDigest};

/// A function, as concurrency is counted.
pub(crate) type FunctionKey = (Namespace, FunctionName);

/// What a sandbox belongs to: it serves nobody else.
pub(crate) type SandboxKey = (Namespace, RevisionDigest);

/// What is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Want {
    /// The function, and how many executions of it may run at a time; `None`: not counted.
    pub(crate) function: Option<(FunctionKey, u32)>,
    /// A parked sandbox of this key will do.
    pub(crate) reuse: Option<SandboxKey>,
    /// How many calls may share a sandbox of it.
    pub(crate) slots: u32,
    /// Memory of a new sandbox, bytes.
    pub(crate) memory: u64,
}

impl Want {
    /// The function whose executions it counts among.
    pub(super) fn key(&self) -> Option<&FunctionKey> {
        self.function.as_ref().map(|(key, _)| key)
    }
}

/// What the host has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Memory for sandboxes, bytes.
    pub(crate) memory: u64,
    /// Sandboxes at a time.
    pub(crate) sandboxes: u32,
    /// Waiters at a time, of those that count.
    pub(crate) waiting: u32,
}
