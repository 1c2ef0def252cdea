//! Deadlines and cancellation as the runner passes them down: a child ends with its parent, never the other way round.
//!
//! GitLab Runner uses Go's `context` package for this; `Build.Run` and `Build.executeUserScripts` in common/build.go say which
//! context a stage gets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Why a context has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Cancelled,
    Deadline,
}

/// A scope that ends by its deadline, by being cancelled, or with its parent.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    deadline: Option<Instant>,
    cancelled: Arc<AtomicBool>,
    parent: Option<Arc<Context>>,
}

impl Context {
    /// One that depends on nothing.
    pub(crate) fn background() -> Self {
        Self { deadline: None, cancelled: Arc::default(), parent: None }
    }

    /// One below this, with a time limit of its own where one is given.
    pub(crate) fn child(&self, limit: Option<Duration>) -> Self {
        let deadline = limit.map(|limit| Instant::now() + limit);
        Self { deadline, cancelled: Arc::default(), parent: Some(Arc::new(self.clone())) }
    }

    /// Ends it and all below it.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
    }

    /// Whether and why it has ended.
    pub(crate) fn end(&self) -> Option<End> {
        if let Some(end) = self.parent.as_ref().and_then(|parent| parent.end()) {
            return Some(end);
        }
        if self.cancelled.load(Ordering::SeqCst) {
            return Some(End::Cancelled);
        }
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline).then_some(End::Deadline)
    }
}
