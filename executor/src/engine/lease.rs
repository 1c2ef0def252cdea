//! Leases: given, kept until they end, and put on record as an invocation each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use runlet_core::backoff::Backoff;
use runlet_core::engine::{EngineError, Lease, LeaseRequest, Network};
use runlet_core::id::{InvocationId, LeaseId};
use runlet_core::limits::Limits;
use runlet_core::manifest::RuntimeKind;
use runlet_core::name::{FunctionName, Namespace, RevisionDigest};
use runlet_core::outcome::{Outcome, OutcomeKind};
use runlet_core::store::StoreError;
use runlet_core::store::lease::NewLease;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::Shared;
use super::job::environment;
use crate::admission::{Seat, Want};
use crate::host::sandbox::SandboxRequest;
use crate::lease::{Held, Leased, Terms, Why};
use crate::output::mask::Masks;
use crate::pool::Place;
use crate::revisions::RevisionError;
use crate::work;

/// How long one who ends a lease waits for its end.
const END_PATIENCE: Duration = Duration::from_secs(10);

type Answer = oneshot::Sender<Result<Lease, EngineError>>;

/// What a sandbox with a function's code is to be like.
struct Plan {
    function: Option<(FunctionName, RevisionDigest)>,
    runtime: RuntimeKind,
    limits: Limits,
    env: BTreeMap<String, String>,
    cwd: String,
}

impl Shared {
    /// Gives a lease, unless whoever wants it goes away before there is one.
    pub(super) async fn lease(self: &Arc<Self>, request: LeaseRequest) -> Result<Lease, EngineError> {
        let (answer, given) = oneshot::channel();
        let shared = Arc::clone(self);
        // A task of its own: a sandbox that is being made is not left alone when the caller goes away.
        self.tasks.spawn(async move {
            let mut answer = answer;
            let Some(result) = shared.give(request, &mut answer).await else { return };
            let Err(unheard) = answer.send(result) else { return };
            if let Ok(lease) = unheard {
                let _ = shared.release(&lease.namespace, lease.id).await;
            }
        });
        given.await.map_err(|_| EngineError::SandboxLost("the lease was cut off by a fault".to_owned()))?
    }

    /// Waits for room and makes the lease; `None` if whoever wants it goes away while it waits.
    async fn give(self: &Arc<Self>, request: LeaseRequest, wanted: &mut Answer) -> Option<Result<Lease, EngineError>> {
        let (plan, room) = tokio::select! {
            seated = self.seat(&request) => match seated {
                Ok(seated) => seated,
                Err(error) => return Some(Err(error)),
            },
            () = wanted.closed() => return None,
        };
        let record = NewLease {
            id: LeaseId::new(),
            namespace: request.namespace.clone(),
            invocation: InvocationId::new(),
            function: plan.function.clone(),
            cause: request.cause.clone(),
        };
        Some(self.make_lease(request, plan, record, room).await)
    }

    async fn seat(&self, request: &LeaseRequest) -> Result<(Plan, Place), EngineError> {
        self.open_for_work().await?;
        self.options.disk.check()?;
        check(request)?;
        let plan = self.plan(request).await?;
        if let Some(old) = request.key.as_deref().and_then(|key| self.leases.with_key(&request.namespace, key)) {
            old.end(Why::Released);
            let _ = timeout(END_PATIENCE, old.closed()).await;
        }
        let want = Want {
            namespace: request.namespace.clone(),
            priority: 0,
            invocation: None,
            function: None,
            reuse: None,
            slots: 1,
            memory: plan.limits.memory.0,
        };
        let (_turn, seat) = self.gate.acquire(want, Some(Instant::now() + request.patience), true).await?;
        let Seat::New(room) = seat else {
            return Err(EngineError::Conflict("a parked sandbox was given to a lease".to_owned()));
        };
        Ok((plan, room))
    }

    /// Makes the sandbox while the lease goes on record.
    async fn make_lease(
        self: &Arc<Self>,
        request: LeaseRequest,
        plan: Plan,
        record: NewLease,
        room: Place,
    ) -> Result<Lease, EngineError> {
        let wanted = SandboxRequest {
            namespace: request.namespace,
            revision: plan.function.map(|(_, revision)| revision),
            runtime: plan.runtime,
            limits: plan.limits,
            network: request.network,
            work: request.work,
            cache: request.cache,
        };
        let (sandbox, on_record) = tokio::join!(self.host.create(wanted), self.store.begin_lease(&record));
        let sandbox = match sandbox {
            Ok(sandbox) => sandbox,
            Err(error) => {
                let outcome = Outcome::because(OutcomeKind::Lost, error.to_string());
                if on_record.is_ok() {
                    self.persist("a lease", || self.store.end_lease(&record, &outcome)).await;
                }
                return Err(EngineError::SandboxLost(error.to_string()));
            }
        };
        if let Err(error) = on_record {
            self.pool.bury(sandbox, room).await;
            return Err(error.into());
        }
        let terms = Terms {
            record,
            key: request.key,
            limits: plan.limits,
            network: request.network,
            idle: request.idle,
            env: plan.env,
            cwd: plan.cwd,
            masks: Masks::new(request.masks),
        };
        let held = Held::new(terms, Leased::new(sandbox, room), request.span);
        self.leases.insert(&held);
        if self.stopping.is_cancelled() {
            held.end(Why::Stopping);
        }
        let lease = held.describe();
        tracing::info!(
            namespace = %lease.namespace,
            lease.id = %lease.id,
            invocation.id = %lease.invocation,
            sandbox.id = %lease.sandbox,
            cause = lease.cause.as_str(),
            "a lease was given"
        );
        self.tasks.spawn(Arc::clone(self).keep(held));
        Ok(lease)
    }

    /// What the function of a lease says about its sandbox.
    async fn plan(&self, request: &LeaseRequest) -> Result<Plan, EngineError> {
        let Some(name) = &request.function else {
            let limits = request.limits.unwrap_or_default();
            let mut env = BTreeMap::new();
            if request.work {
                env.insert("HOME".to_owned(), "/builds/.home".to_owned());
                env.insert("TMPDIR".to_owned(), "/builds/.tmp".to_owned());
            }
            let cwd = if request.work { "/builds" } else { "/tmp" }.to_owned();
            return Ok(Plan { function: None, runtime: RuntimeKind::Exec, limits, env, cwd });
        };
        let namespace = &request.namespace;
        let found = self.store.current(namespace, name).await?;
        let found = found.ok_or_else(|| EngineError::NotFound {
            what: "function",
            name: name.to_string(),
            namespace: namespace.clone(),
        })?;
        let manifest = self.manifests.of(&found.function);
        self.revisions.ensure(namespace, &found.function.revision).await.map_err(|error| match error {
            RevisionError::Store(_, error) => EngineError::StoreDown(error),
            RevisionError::Missing(digest) => {
                EngineError::NotFound { what: "revision", name: digest.to_string(), namespace: namespace.clone() }
            }
            RevisionError::Unpack(..) => EngineError::SandboxLost(error.to_string()),
        })?;
        let env = environment(namespace, &manifest, &*self.options.secrets)
            .map_err(|outcome| EngineError::Conflict(outcome.error.map_or_else(String::new, |error| error.message)))?;
        Ok(Plan {
            function: Some((name.clone(), found.function.revision.clone())),
            runtime: manifest.runtime,
            limits: request.limits.unwrap_or(manifest.limits),
            env,
            cwd: "/var/task".to_owned(),
        })
    }

    /// Stays with a lease until it has ended, and puts that on record.
    async fn keep(self: Arc<Self>, held: Arc<Held>) {
        let end = held.over(&self.leases).await;
        let outcome = held.outcome(&end);
        self.persist("a lease", || self.store.end_lease(held.record(), &outcome)).await;
        tracing::info!(
            namespace = %held.namespace(),
            lease.id = %held.id(),
            invocation.id = %held.invocation(),
            sandbox.id = held.sandbox().name(),
            outcome = %outcome.kind,
            "the lease has ended"
        );
        self.leases.remove(held.id());
        held.close();
        self.bell.ring(held.invocation());
    }

    /// Puts an end on record, however long the database is down.
    pub(super) async fn persist<F: Future<Output = Result<(), StoreError>>>(
        &self,
        what: &'static str,
        write: impl Fn() -> F,
    ) {
        let mut backoff = Backoff::DATABASE;
        loop {
            match write().await {
                Ok(()) => return,
                Err(StoreError::Down(_)) if !self.ended.is_cancelled() => {}
                Err(error) => {
                    tracing::error!(%error, "the end of {what} is not on record");
                    return;
                }
            }
            tokio::select! {
                () = sleep(backoff.pause()) => {}
                () = self.ended.cancelled() => {}
            }
        }
    }

    /// Ends a lease: its sandbox is gone, and that is on record, when this returns.
    pub(super) async fn release(&self, namespace: &Namespace, id: LeaseId) -> Result<(), EngineError> {
        let held = self.leases.find(namespace, id)?;
        held.end(Why::Released);
        timeout(END_PATIENCE, held.closed()).await.map_err(|_| {
            EngineError::SandboxLost("it was killed and is not gone yet; it will be cleaned up".to_owned())
        })
    }

    /// Moves the end of a lease.
    pub(super) fn renew(&self, namespace: &Namespace, id: LeaseId, span: Duration) -> Result<Lease, EngineError> {
        let held = self.leases.find(namespace, id)?;
        held.renew(span);
        Ok(held.describe())
    }

    /// Ends all leases.
    pub(super) async fn end_leases(&self) {
        for held in self.leases.all() {
            held.end(Why::Stopping);
        }
        if timeout(END_PATIENCE, self.leases.empty()).await.is_err() {
            tracing::error!("some leases have not ended in time; they are closed at the next start");
        }
    }
}

/// The rules that need nothing but the request.
fn check(request: &LeaseRequest) -> Result<(), EngineError> {
    let invalid = |reason: String| Err(EngineError::Invalid(reason));
    if request.image != "host" {
        return invalid(format!("the image `{}` is not there: `host` is the only one yet", request.image));
    }
    if let Some(cache) = request.cache.as_deref().filter(|cache| !work::is_name(cache)) {
        let shown: String = cache.chars().take(80).collect();
        return invalid(format!("`{shown}` is no name of a cache: use 1 to 64 characters of a-z, 0-9 and -"));
    }
    if request.network == Network::Host && request.function.is_some() {
        return invalid("a function's sandbox never sees the host's network".to_owned());
    }
    Ok(())
}
