//! The executions that this server runs now: to be found by those who want to end them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use runlet_core::id::{ExecutionId, InvocationId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Why an execution is ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Somebody cancelled it.
    Cancelled,
    /// The server is stopping.
    Stopping,
    /// Its claim belongs to nobody or to somebody else: nothing may be written about it.
    Disowned,
}

/// An execution that runs, or is about to.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) invocation: InvocationId,
    pub(crate) execution: ExecutionId,
    /// The fence of its claim; `None` for synchronous calls.
    pub(crate) fence: Option<i64>,
    /// Ends it.
    pub(crate) token: CancellationToken,
    why: OnceLock<Why>,
    ending: AtomicBool,
}

impl Live {
    /// Says that its end goes on record now. From here on the fence alone decides whether the claim is still ours: its row
    /// in the queue goes away with the end, so a heartbeat that does not find it means nothing.
    pub(crate) fn set_ending(&self) {
        self.ending.store(true, Ordering::Release);
    }

    /// Ends it. The first reason counts.
    fn end(&self, why: Why) {
        let _ = self.why.set(why);
        self.token.cancel();
    }

    /// Why it is ended from outside, if it is.
    pub(crate) fn why(&self) -> Option<Why> {
        self.why.get().copied()
    }
}

#[derive(Debug, Default)]
struct Inner {
    live: HashMap<InvocationId, Arc<Live>>,
    stopping: bool,
}

/// All executions that run here.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    inner: Mutex<Inner>,
    left: Notify,
}

/// Stands for an execution in the registry, until it is dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    registry: Arc<Registry>,
    live: Arc<Live>,
}

impl std::ops::Deref for Entry {
    type Target = Live;

    fn deref(&self) -> &Live {
        &self.live
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut inner = self.registry.lock();
        // A claim of the same invocation may have come here again before a disowned one was gone.
        if inner.live.get(&self.live.invocation).is_some_and(|live| Arc::ptr_eq(live, &self.live)) {
            inner.live.remove(&self.live.invocation);
        }
        drop(inner);
        self.registry.left.notify_waiters();
    }
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an execution into the registry. One that comes after the end of the server has begun is told to end at once.
    pub(crate) fn enter(
        self: &Arc<Self>,
        invocation: InvocationId,
        execution: ExecutionId,
        fence: Option<i64>,
    ) -> Entry {
        let live = Arc::new(Live {
            invocation,
            execution,
            fence,
            token: CancellationToken::new(),
            why: OnceLock::new(),
            ending: AtomicBool::new(false),
        });
        let mut inner = self.lock();
        if inner.stopping {
            live.end(Why::Stopping);
        }
        inner.live.insert(invocation, Arc::clone(&live));
        Entry { registry: Arc::clone(self), live }
    }

    /// Ends the execution of an invocation; `false` if none runs here.
    pub(crate) fn cancel(&self, invocation: InvocationId) -> bool {
        let found = self.lock().live.get(&invocation).cloned();
        found.inspect(|live| live.end(Why::Cancelled)).is_some()
    }

    /// Ends the executions whose claims have these fences, and writes nothing about them.
    pub(crate) fn disown(&self, fences: &[i64]) {
        let all: Vec<_> = self.lock().live.values().cloned().collect();
        let lost = |live: &Arc<Live>| {
            live.fence.is_some_and(|fence| fences.contains(&fence)) && !live.ending.load(Ordering::Acquire)
        };
        for live in all.into_iter().filter(lost) {
            tracing::warn!(invocation.id = %live.invocation, execution.id = %live.execution, "the claim is not ours any more: it is killed");
            live.end(Why::Disowned);
        }
    }

    /// Ends all executions, and those that are still to come.
    pub(crate) fn stop(&self) {
        let all: Vec<_> = {
            let mut inner = self.lock();
            inner.stopping = true;
            inner.live.values().cloned().collect()
        };
        for live in all {
            live.end(Why::Stopping);
        }
    }

    /// The fences of all claims that run here.
    pub(crate) fn fences(&self) -> Vec<i64> {
        self.lock().live.values().filter_map(|live| live.fence).collect()
    }

    /// The execution of an invocation, if it runs here.
    pub(crate) fn execution(&self, invocation: InvocationId) -> Option<ExecutionId> {
        self.lock().live.get(&invocation).map(|live| live.execution)
    }

    /// Waits until no execution runs here.
    pub(crate) async fn empty(&self) {
        loop {
            let left = self.left.notified();
            if self.lock().live.is_empty() {
                return;
            }
            left.await;
        }
    }
}
