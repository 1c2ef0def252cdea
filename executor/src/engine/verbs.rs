//! The verbs of the engine, each handed to the part that does it.

use std::sync::Arc;
use std::time::Duration;

use runlet_core::engine::{
    Capacity, Command, Engine, EngineError, Exec, Explanation, Lease, LeaseRequest, LogPiece, LogRead, NewInvocation,
    Reply, ResultPiece, Submission, Submitted, Verb,
};
use runlet_core::id::{InvocationId, LeaseId};
use runlet_core::invocation::InvocationState;
use runlet_core::limits::Limits;
use runlet_core::manifest::RuntimeKind;
use runlet_core::name::Namespace;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{LocalEngine, Shared};
use crate::admission::{Seat, Want};
use crate::host::sandbox::SandboxRequest;
use crate::lease::Leased;
use crate::revisions::RevisionError;

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
        Box::pin(async {
            // A task of its own: a sandbox that is being made is not left alone when the caller goes away.
            let lease = self.shared.tasks.spawn(Arc::clone(&self.shared).lease(request));
            lease.await.map_err(|_| EngineError::SandboxLost("the lease was cut off by a fault".to_owned()))?
        })
    }

    fn renew<'a>(&'a self, namespace: &'a Namespace, id: LeaseId, span: Duration) -> Verb<'a, Lease> {
        Box::pin(async move { self.shared.leases.renew(namespace, id, span) })
    }

    fn exec<'a>(&'a self, namespace: &'a Namespace, id: LeaseId, command: Command) -> Verb<'a, Exec> {
        Box::pin(self.shared.leases.exec(namespace, id, command))
    }

    fn release<'a>(&'a self, namespace: &'a Namespace, id: LeaseId) -> Verb<'a, ()> {
        Box::pin(self.shared.leases.release(namespace, id))
    }

    fn logs<'a>(&'a self, namespace: &'a Namespace, read: LogRead) -> Verb<'a, LogPiece> {
        Box::pin(self.shared.logs(namespace, read))
    }

    fn resize<'a>(&'a self, namespace: &'a Namespace, id: LeaseId, limits: Limits) -> Verb<'a, ()> {
        Box::pin(self.shared.leases.resize(namespace, id, limits))
    }

    fn explain<'a>(&'a self, namespace: &'a Namespace, id: InvocationId) -> Verb<'a, Explanation> {
        Box::pin(self.shared.explain(namespace, id))
    }

    fn capacity(&self) -> Capacity {
        let (memory_used, sandboxes, waiting) = self.shared.gate.usage();
        let parked = self.shared.gate.parked();
        let bounds = self.shared.gate.bounds();
        Capacity {
            memory_total: bounds.memory,
            memory_used,
            sandboxes,
            parked,
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
                self.nudge.notify_one();
                Ok(submitted)
            }
            Err(function) => Err(EngineError::NotFound { what: "function", name: function.to_string(), namespace }),
        }
    }

    async fn lease(self: Arc<Self>, request: LeaseRequest) -> Result<Lease, EngineError> {
        self.open_for_work().await?;
        let LeaseRequest { namespace, image, revision, limits, patience } = request;
        if image != "host" {
            return Err(EngineError::Invalid(format!("the image `{image}` is not there: `host` is the only one yet")));
        }
        if let Some(revision) = &revision {
            self.revisions.ensure(&namespace, revision).await.map_err(|error| match error {
                RevisionError::Store(_, error) => EngineError::StoreDown(error),
                RevisionError::Missing(digest) => {
                    EngineError::NotFound { what: "revision", name: digest.to_string(), namespace: namespace.clone() }
                }
                RevisionError::Unpack(..) => EngineError::SandboxLost(error.to_string()),
            })?;
        }
        let want = Want { function: None, reuse: None, slots: 1, memory: limits.memory.0 };
        let (_turn, seat) = self.gate.acquire(want, Some(Instant::now() + patience), true).await?;
        let Seat::New(room) = seat else {
            return Err(EngineError::Conflict("a parked sandbox was given to a lease".to_owned()));
        };
        let wanted = SandboxRequest { namespace: namespace.clone(), revision, runtime: RuntimeKind::Exec, limits };
        let sandbox = self.host.create(wanted).await;
        let sandbox = sandbox.map_err(|error| EngineError::SandboxLost(error.to_string()))?;
        if self.stopping.is_cancelled() {
            self.pool.bury(sandbox, room).await;
            return Err(EngineError::Stopping);
        }
        Ok(self.leases.give(namespace, Leased::new(sandbox, room), limits.memory.0, limits.timeout.0))
    }
}
