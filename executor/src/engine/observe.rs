//! Looking at invocations and executions, and cancelling them.

use std::time::Duration;

use runlet_core::engine::{EngineError, LogPiece, LogRead};
use runlet_core::id::InvocationId;
use runlet_core::invocation::InvocationState;
use runlet_core::name::Namespace;
use runlet_core::store::execution::Invocation;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Shared;
use crate::lease::Why;

/// One who waits looks at least so often.
const LOOK: Duration = Duration::from_millis(500);

/// One who follows output looks so often.
const FOLLOW: Duration = Duration::from_millis(100);

/// How long a cancel waits for the end of what it cancels.
const CANCEL_PATIENCE: Duration = Duration::from_secs(10);

impl Shared {
    pub(super) async fn invocation(&self, namespace: &Namespace, id: InvocationId) -> Result<Invocation, EngineError> {
        self.store.invocation(namespace, id).await?.ok_or_else(|| not_found("invocation", id, namespace))
    }

    pub(super) async fn wait(
        &self,
        namespace: &Namespace,
        id: InvocationId,
        patience: Duration,
    ) -> Result<InvocationState, EngineError> {
        let until = Instant::now() + patience;
        let listener = self.bell.listen(id);
        loop {
            let rung = listener.rung();
            let state = self.invocation(namespace, id).await?.state;
            let now = Instant::now();
            if state.is_terminal() || now >= until {
                return Ok(state);
            }
            let _ = timeout_at(until.min(now + LOOK), rung).await;
        }
    }

    pub(super) async fn cancel(&self, namespace: &Namespace, id: InvocationId) -> Result<InvocationState, EngineError> {
        let state = self.store.cancel(namespace, id).await?.ok_or_else(|| not_found("invocation", id, namespace))?;
        if state == InvocationState::Running {
            // Those that run elsewhere are told by the store.
            self.cancel_here(id);
            self.wait(namespace, id, CANCEL_PATIENCE).await?;
        } else if !state.is_terminal() {
            self.bell.ring(id);
        }
        Ok(state)
    }

    /// Ends the execution of an invocation, or its lease, if it is here.
    pub(super) fn cancel_here(&self, id: InvocationId) {
        self.registry.cancel(id);
        if let Some(held) = self.leases.of_invocation(id) {
            held.end(Why::Cancelled);
        }
    }

    pub(super) async fn logs(&self, namespace: &Namespace, read: LogRead) -> Result<LogPiece, EngineError> {
        let LogRead { execution, stream, offset, limit, patience } = read;
        let until = Instant::now() + patience;
        loop {
            // In this order: what is read after the end was seen is all there is.
            let found = self.store.execution(namespace, execution).await?;
            let found = found.ok_or_else(|| not_found("execution", execution, namespace))?;
            let bytes = self.store.read_logs(namespace, execution, stream, offset, limit).await?;
            let end = found.state.is_terminal() && bytes.len() < limit;
            let now = Instant::now();
            if end || !bytes.is_empty() || now >= until {
                return Ok(LogPiece { bytes, end });
            }
            sleep_until(until.min(now + FOLLOW)).await;
        }
    }
}

fn not_found(what: &'static str, id: impl ToString, namespace: &Namespace) -> EngineError {
    EngineError::NotFound { what, name: id.to_string(), namespace: namespace.clone() }
}
