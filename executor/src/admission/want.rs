//! What is wanted, and what there is.

use std::collections::HashMap;
use std::sync::Arc;

use runlet_core::id::InvocationId;
use runlet_core::name::{FunctionName, Namespace, RevisionDigest};

/// A function, as concurrency is counted.
pub(crate) type FunctionKey = (Namespace, FunctionName);

/// What a sandbox belongs to: it serves nobody else.
pub(crate) type SandboxKey = (Namespace, RevisionDigest);

/// What is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Want {
    /// Whose share it counts against.
    pub(crate) namespace: Namespace,
    /// The function, and how many executions of it may run at a time; `None`: not counted.
    pub(crate) function: Option<(FunctionKey, u32)>,
    /// A parked sandbox of this key will do. Only functions have such.
    pub(crate) reuse: Option<SandboxKey>,
    /// How many calls may share a sandbox of it.
    pub(crate) slots: u32,
    /// Memory of a new sandbox, bytes.
    pub(crate) memory: u64,
    /// Higher first among those of the same function; each is worth [`AGE`] of waiting.
    pub(crate) priority: i16,
    /// What asks, so that it can be told why it waits.
    pub(crate) invocation: Option<InvocationId>,
}

/// Waiting so long, in milliseconds, is worth as much as one more of priority: the lowest does not wait for ever.
pub(crate) const AGE: i64 = 1_000;

/// Whose line one stands in: a function's, or that of all leases of the namespace.
pub(super) type Who = Option<FunctionName>;

impl Want {
    /// The function whose executions it counts among.
    pub(super) fn key(&self) -> Option<&FunctionKey> {
        self.function.as_ref().map(|(key, _)| key)
    }

    pub(super) fn who(&self) -> Who {
        self.key().map(|(_, function)| function.clone())
    }

    /// How many executions of its function may run.
    pub(super) fn most(&self) -> u32 {
        self.function.as_ref().map_or(u32::MAX, |(_, most)| *most)
    }

    /// The sandboxes that will do: function and revision.
    pub(super) fn parked(&self) -> Option<(&FunctionKey, &RevisionDigest)> {
        Some((self.key()?, &self.reuse.as_ref()?.1))
    }
}

/// What a function wants to have ready.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    /// The revision that is called.
    pub(crate) revision: RevisionDigest,
    /// How many sandboxes of it.
    pub(crate) least: u32,
    /// Whether several calls share one.
    pub(crate) shared: bool,
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
    /// For so long, in milliseconds, sandboxes stay with functions that have more to do for them, though somebody waits for room who
    /// is before those: a sandbox that changes hands has to be made anew.
    pub(crate) grace: u64,
}

/// What share of the host each namespace has when all of them want it; 1 where nothing else is said.
#[derive(Debug, Clone, Default)]
pub(crate) struct Weights(Arc<HashMap<Namespace, u32>>);

impl Weights {
    pub(crate) fn new(weights: HashMap<Namespace, u32>) -> Self {
        Self(Arc::new(weights))
    }

    /// The weight of a namespace.
    pub(crate) fn of(&self, namespace: &Namespace) -> u32 {
        self.0.get(namespace).copied().unwrap_or(1).max(1)
    }

    /// Those that were set.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Namespace, u32)> {
        self.0.iter().map(|(namespace, weight)| (namespace, *weight))
    }
}
