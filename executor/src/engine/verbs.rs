//! The verbs of the engine, each handed to the part that does it.

use std::time::Duration;

use runlet_core::engine::{
    Capacity, Command, Engine, EngineError, Exec, Explanation, Lease, LeaseRequest, LogPiece, LogRead, NewInvocation,
    Reply, ResultPiece, Submission, Submitted, Verb,
};
use runlet_core::id::{InvocationId, LeaseId};
use runlet_core::invocation::InvocationState;
use runlet_core::limits::Limits;
use runlet_core::name::{FunctionName, Namespace};
use runlet_core::precondition::Precondition;
use runlet_core::settings::Change;
use runlet_core::store::function::Function;
use tokio::sync::mpsc;

use super::{LocalEngine, Shared};

impl Engine for LocalEngine {
    fn submit(&self, submission: Submission) -> Verb<'_, Submitted> {
        Box::pin(self.shared.submit(submission))
    }

    fn call(&self, invocation: NewInvocation) -> Verb<'_, Reply> {
        Box::pin(self.shared.call(invocation, None))
    }

    fn call_in_pieces(&self, invocation: NewInvocation, pieces: mpsc::Sender<ResultPiece>) -> Verb<'_, Reply> {
        Box::pin(self.shared.call(invocation, Some(pieces)))
    }

    fn wait<'a>(&'a self, namespace: &'a Namespace, id: InvocationId, patience: Duration) -> Verb<'a, InvocationState> {
        Box::pin(self.shared.wait(namespace, id, patience))
    }

    fn cancel<'a>(&'a self, namespace: &'a Namespace, id: InvocationId) -> Verb<'a, InvocationState> {
        Box::pin(self.shared.cancel(namespace, id))
    }

    fn lease(&self, request: LeaseRequest) -> Verb<'_, Lease> {
        Box::pin(self.shared.lease(request))
    }

    fn renew<'a>(&'a self, namespace: &'a Namespace, id: LeaseId, span: Duration) -> Verb<'a, Lease> {
        Box::pin(async move { self.shared.renew(namespace, id, span) })
    }

    fn leases(&self, namespace: &Namespace) -> Vec<Lease> {
        self.shared.leases.list(namespace)
    }

    fn exec<'a>(&'a self, namespace: &'a Namespace, id: LeaseId, command: Command) -> Verb<'a, Exec> {
        Box::pin(self.shared.exec(namespace, id, command))
    }

    fn release<'a>(&'a self, namespace: &'a Namespace, id: LeaseId) -> Verb<'a, ()> {
        Box::pin(self.shared.release(namespace, id))
    }

    fn logs<'a>(&'a self, namespace: &'a Namespace, read: LogRead) -> Verb<'a, LogPiece> {
        Box::pin(self.shared.logs(namespace, read))
    }

    fn resize<'a>(&'a self, namespace: &'a Namespace, id: LeaseId, limits: Limits) -> Verb<'a, ()> {
        Box::pin(async move { self.shared.leases.find(namespace, id)?.resize(limits).await })
    }

    fn explain<'a>(&'a self, namespace: &'a Namespace, id: InvocationId) -> Verb<'a, Explanation> {
        Box::pin(self.shared.explain(namespace, id))
    }

    fn configure<'a>(
        &'a self,
        namespace: &'a Namespace,
        function: &'a FunctionName,
        change: Change,
        precondition: &'a Precondition,
    ) -> Verb<'a, Function> {
        Box::pin(self.shared.configure(namespace, function, change, precondition))
    }

    fn capacity(&self) -> Capacity {
        let (memory_used, sandboxes, waiting) = self.shared.gate.usage();
        let (parked, stems) = (self.shared.gate.parked(), self.shared.gate.spares());
        let bounds = self.shared.gate.bounds();
        Capacity {
            memory_total: bounds.memory,
            memory_used,
            sandboxes,
            parked,
            stems,
            sandboxes_max: bounds.sandboxes,
            waiting: u32::try_from(waiting).unwrap_or(u32::MAX),
        }
    }
}

impl Shared {
    async fn submit(&self, submission: Submission) -> Result<Submitted, EngineError> {
        if self.stopping.is_cancelled() {
            return Err(EngineError::Stopping);
        }
        self.options.disk.check()?;
        let Some(namespace) = submission.invocations.first().map(|first| first.namespace.clone()) else {
            return Err(EngineError::Invalid("a submission without an invocation".to_owned()));
        };
        if submission.invocations.iter().any(|new| new.namespace != namespace) {
            return Err(EngineError::Invalid("the invocations of a submission belong to one namespace".to_owned()));
        }
        let most = i64::from(self.options.max_queued);
        let coming = i64::try_from(submission.invocations.len()).unwrap_or(i64::MAX);
        let waiting = self.backlog.waiting(&namespace).await?;
        if waiting.saturating_add(coming) > most {
            let reason =
                format!("{waiting} invocations wait in namespace `{namespace}`, and {most} may; try again later");
            return Err(EngineError::QueueFull(reason));
        }
        match self.store.accept(submission).await? {
            Ok(submitted) => {
                self.backlog.add(&namespace, submitted.invocations.iter().filter(|one| !one.repeated).count());
                Ok(submitted)
            }
            Err(function) => Err(EngineError::NotFound { what: "function", name: function.to_string(), namespace }),
        }
    }
}
