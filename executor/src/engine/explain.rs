//! Why an invocation waits, and behind what.

use chrono::SecondsFormat;
use runlet_core::engine::{EngineError, Explanation, Holder, Limit};
use runlet_core::execution::ExecutionState;
use runlet_core::id::InvocationId;
use runlet_core::invocation::InvocationState;
use runlet_core::name::{FunctionName, Namespace};
use runlet_core::store::execution::{ExecutionFilter, Invocation};
use runlet_core::store::queue::place::Place;
use runlet_core::unit::ByteSize;

use super::Shared;
use crate::admission::{Binding, Standing};

/// Most holders that are named.
const MOST: usize = 5;

impl Shared {
    pub(super) async fn explain(&self, namespace: &Namespace, id: InvocationId) -> Result<Explanation, EngineError> {
        let invocation = self.invocation(namespace, id).await?;
        let state = invocation.state;
        if let (false, Some(standing)) = (state.is_terminal(), self.gate.standing(id)) {
            return self.at_the_gate(&invocation, standing).await;
        }
        match state {
            InvocationState::Held => self.why_held(&invocation).await,
            InvocationState::Queued => self.why_queued(&invocation).await,
            InvocationState::Running => Ok(Explanation::of(state, self.where_it_runs(id))),
            terminal => Ok(Explanation::of(state, format!("it does not wait: it is {terminal}"))),
        }
    }

    fn where_it_runs(&self, id: InvocationId) -> String {
        match self.registry.execution(id) {
            Some(execution) => format!("it does not wait: its execution {execution} runs on this server"),
            None if self.leases.of_invocation(id).is_some() => "a sandbox of this server is leased for it".to_owned(),
            None => "it runs on another server".to_owned(),
        }
    }

    async fn why_held(&self, invocation: &Invocation) -> Result<Explanation, EngineError> {
        let reason =
            "the run of its schedule before it is not over, and its schedule lets them run one after the other";
        let holders = self.running_of(invocation).await?;
        Ok(Explanation { limit: Some(Limit::Overlap), holders, ..Explanation::of(invocation.state, reason) })
    }

    /// It is on this server and waits for its turn or for room.
    async fn at_the_gate(&self, invocation: &Invocation, standing: Standing) -> Result<Explanation, EngineError> {
        let ahead = u64::try_from(standing.ahead).unwrap_or(u64::MAX);
        let (limit, reason) = match standing.binding {
            Binding::Turns(running) => (Limit::MaxConcurrency, turns(running, invocation.function.as_ref())),
            binding => self.room(binding, standing.memory),
        };
        let reason = format!("{reason}; {} goes before it, of {} that wait", count(ahead), standing.waiting);
        let holders = self.holders(limit, invocation).await?;
        Ok(Explanation { limit: Some(limit), ahead: Some(ahead), holders, ..Explanation::of(invocation.state, reason) })
    }

    async fn why_queued(&self, invocation: &Invocation) -> Result<Explanation, EngineError> {
        let of = |reason: String| Explanation::of(invocation.state, reason);
        let Some(place) = self.store.place_in_queue(invocation.id).await? else {
            return Ok(of("it is about to start".to_owned()));
        };
        let (limit, reason) = self.binding(invocation, place).await?;
        let holders = match limit {
            Some(limit) => self.holders(limit, invocation).await?,
            None => Vec::new(),
        };
        let reason = if place.ahead > 0 {
            format!("{reason}; {} of the same function goes before it", count(place.ahead))
        } else {
            reason
        };
        let Place { not_before, due, deadline, ahead } = place;
        let not_before = (!due).then_some(not_before);
        Ok(Explanation { limit, ahead: Some(ahead), not_before, deadline, holders, ..of(reason) })
    }

    /// What keeps queued work from being claimed.
    async fn binding(&self, invocation: &Invocation, place: Place) -> Result<(Option<Limit>, String), EngineError> {
        if self.stopping.is_cancelled() {
            return Ok((Some(Limit::Stopping), "this server is stopping; it waits for the next one".to_owned()));
        }
        if !place.due {
            let due = place.not_before.to_rfc3339_opts(SecondsFormat::Millis, true);
            let reason = match (&invocation.outcome, invocation.attempts) {
                (Some(outcome), attempts @ 1..) => {
                    format!("attempt {attempts} ended with outcome {}; the next one is due at {due}", outcome.kind)
                }
                _ => format!("it is delayed until {due}"),
            };
            return Ok((Some(Limit::NotBefore), reason));
        }
        if let Err(low) = self.options.disk.check() {
            return Ok((Some(Limit::Disk), low.to_string()));
        }
        let (Some(function), Some(revision)) = (&invocation.function, &invocation.revision) else {
            return Ok((None, "it waits for a sandbox".to_owned()));
        };
        let running = self.gate.running(&(invocation.namespace.clone(), function.clone()));
        let manifest = self.manifests.get(&invocation.namespace, revision).await?;
        let Some(manifest) = manifest else { return Ok((None, "it is about to be claimed".to_owned())) };
        if running >= manifest.max_concurrency {
            return Ok((Some(Limit::MaxConcurrency), turns(running, Some(function))));
        }
        let (limits, _) = self.limits(&invocation.namespace, function, &manifest).await;
        let (spare, memory) = self.gate.spare();
        if spare > 0 && memory >= limits.memory.0 {
            return Ok((None, "it is about to be claimed".to_owned()));
        }
        let (used, sandboxes, _) = self.gate.usage();
        let bounds = self.gate.bounds();
        let binding = if used.saturating_add(limits.memory.0) > bounds.memory {
            Binding::Memory
        } else if sandboxes >= bounds.sandboxes {
            Binding::Sandboxes
        } else {
            Binding::Share
        };
        let (limit, reason) = self.room(binding, limits.memory.0);
        Ok((Some(limit), reason))
    }

    fn room(&self, binding: Binding, memory: u64) -> (Limit, String) {
        let (used, sandboxes, _) = self.gate.usage();
        let bounds = self.gate.bounds();
        match binding {
            Binding::Memory => (
                Limit::Memory,
                format!(
                    "it needs {}, and {} of the {} for sandboxes are taken",
                    ByteSize(memory),
                    ByteSize(used),
                    ByteSize(bounds.memory)
                ),
            ),
            Binding::Sandboxes => {
                (Limit::MaxSandboxes, format!("{sandboxes} sandboxes exist, which is the server's max_sandboxes"))
            }
            Binding::Turns(_) | Binding::Share => {
                (Limit::Share, "others wait for room who have had less of it".to_owned())
            }
        }
    }

    async fn holders(&self, limit: Limit, invocation: &Invocation) -> Result<Vec<Holder>, EngineError> {
        match limit {
            Limit::MaxConcurrency => self.running_of(invocation).await,
            Limit::Memory | Limit::MaxSandboxes => Ok(self.takers(&invocation.namespace)),
            _ => Ok(Vec::new()),
        }
    }

    /// The executions of its function that run, those that began last first.
    async fn running_of(&self, invocation: &Invocation) -> Result<Vec<Holder>, EngineError> {
        let filter = ExecutionFilter {
            function: invocation.function.clone(),
            state: Some(ExecutionState::Running),
            limit: i64::try_from(MOST).unwrap_or(i64::MAX),
            ..ExecutionFilter::default()
        };
        let running = self.store.executions(&invocation.namespace, &filter).await?;
        let holder =
            |invocation| Holder { invocation: Some(invocation), function: None, memory: None, sandboxes: None };
        Ok(running.into_iter().map(|execution| holder(execution.invocation)).collect())
    }

    /// Whose sandboxes take the memory. Functions of other namespaces are not named.
    fn takers(&self, namespace: &Namespace) -> Vec<Holder> {
        let taker = |(owner, function, memory, sandboxes): (Namespace, Option<FunctionName>, u64, u32)| Holder {
            invocation: None,
            function: function.filter(|_| owner == *namespace),
            memory: Some(memory),
            sandboxes: Some(sandboxes),
        };
        self.gate.takers(MOST).into_iter().map(taker).collect()
    }
}

fn turns(running: u32, function: Option<&FunctionName>) -> String {
    let function = function.map_or("the function", FunctionName::as_str);
    format!("{running} executions of {function} run on this server, which is its max_concurrency")
}

fn count(ahead: u64) -> String {
    if ahead == 0 { "nothing".to_owned() } else { ahead.to_string() }
}
