//! How somebody who waits stands: the answer to "why".

/// What keeps a waiter waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Binding {
    /// So many executions of its function run, as many as may.
    Turns(u32),
    /// The memory for sandboxes is promised to others.
    Memory,
    /// As many sandboxes exist as may.
    Sandboxes,
    /// There is room, and others are before it.
    Share,
}

/// How one stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// So many of the same function are before it.
    pub(crate) ahead: usize,
    /// So many wait in all.
    pub(crate) waiting: usize,
    /// What keeps it waiting.
    pub(crate) binding: Binding,
    /// Memory that it wants, bytes.
    pub(crate) memory: u64,
}
