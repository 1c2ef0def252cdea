//! Steps: processes in leased sandboxes, each on record as an execution of the lease's invocation.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use runlet_core::clock;
use runlet_core::engine::{Command, EngineError, Exec, ExecEvent, Stream};
use runlet_core::execution::{Remains, Usage};
use runlet_core::id::{ExecutionId, LeaseId};
use runlet_core::name::Namespace;
use runlet_core::outcome::{Outcome, OutcomeKind};
use runlet_core::store::lease::{NewStep, StepEnd};
use tokio::sync::{mpsc, oneshot, watch};

use super::Shared;
use crate::host::sandbox::{ProcessSpec, SandboxError};
use crate::lease::{Busy, Followed, Held, Talk, follow, spec};
use crate::output::mask::Masked;
use crate::output::{LogSink, LogTotals};
use crate::road::Road;
use crate::session::OutputSink;

/// Events and words on their way between a process and whoever follows it.
const ON_THE_WAY: usize = 16;

/// Longest name of a step that is kept, bytes.
const LONGEST_NAME: usize = 200;

/// A step on its way.
struct Step {
    held: Arc<Held>,
    busy: Busy,
    execution: ExecutionId,
    name: Option<String>,
    decides: bool,
}

/// What is said of a step when it has ended.
struct Ended {
    outcome: Outcome,
    usage: Usage,
    remains: Option<Remains>,
    log: LogTotals,
}

/// Output to the one who follows, and to the record.
struct Both {
    events: mpsc::Sender<ExecEvent>,
    log: Masked<LogSink>,
}

impl OutputSink for Both {
    async fn write(&mut self, stream: Stream, bytes: Bytes) {
        // Nobody may follow any more; it goes on record all the same.
        let _ = self.events.send(ExecEvent::Output(stream, bytes.clone())).await;
        self.log.write(stream, bytes).await;
    }
}

impl Shared {
    /// Starts a process in a leased sandbox. Once it has begun it goes to its end, and on record.
    pub(super) async fn exec(
        self: &Arc<Self>,
        namespace: &Namespace,
        id: LeaseId,
        command: Command,
    ) -> Result<Exec, EngineError> {
        let held = self.leases.find(namespace, id)?;
        check(&command)?;
        let busy = held.begin().ok_or_else(|| EngineError::Conflict(format!("the lease {id} is ending")))?;
        let name = command.step.clone().map(|mut name| {
            name.truncate(name.floor_char_boundary(LONGEST_NAME));
            name
        });
        let step = Step { held, busy, execution: ExecutionId::new(), name, decides: command.decides };
        let (answer, started) = oneshot::channel();
        self.tasks.spawn(Arc::clone(self).run_step(step, command, answer));
        started.await.map_err(|_| EngineError::SandboxLost("the command was cut off by a fault".to_owned()))?
    }

    async fn run_step(
        self: Arc<Self>,
        step: Step,
        command: Command,
        answer: oneshot::Sender<Result<Exec, EngineError>>,
    ) {
        let begin = NewStep {
            execution: step.execution,
            number: step.busy.number,
            step: step.name.clone(),
            sandbox: step.held.sandbox().name().to_owned(),
        };
        // No code of it runs before it is on record.
        if let Err(error) = self.store.begin_step(step.held.record(), &begin).await {
            let _ = answer.send(Err(error.into()));
            drop(step);
            self.leases.step_ended();
            return;
        }
        let (events, heard) = mpsc::channel(ON_THE_WAY);
        let (input, told) = mpsc::channel(ON_THE_WAY);
        let (taken, took) = watch::channel(0);
        let talk = Talk { input: told, taken, window: Exec::WINDOW, grace: self.options.kill_grace };
        let (execution, invocation) = (step.execution, step.held.invocation());
        // One who has gone away drops `input` with it, and that is a cancel.
        let _ = answer.send(Ok(Exec { execution, invocation, events: heard, input, taken: took }));
        let process = spec(command, &step.held, facts(&step));
        let ended = self.run_process(&step, process, talk, events.clone()).await;
        self.end_step(step, ended, events).await;
    }

    async fn run_process(
        &self,
        step: &Step,
        process: ProcessSpec,
        talk: Talk,
        events: mpsc::Sender<ExecEvent>,
    ) -> Ended {
        let held = &step.held;
        let process = match held.sandbox().spawn(process).await {
            Ok(process) => process,
            Err(error) => return Ended::before(error),
        };
        let road = Road::Committed(self.store.clone(), self.ledger.clone());
        let owner = (held.namespace().clone(), step.execution);
        let log = LogSink::new(road, self.tasks.clone(), owner, self.options.max_log, step.busy.until);
        let mut both = Both { events, log: Masked::new(log, held.terms().masks.clone()) };
        let Followed { outcome, gone } = follow(process, held, talk, &mut both).await;
        let log = both.log.finish().await.finish().await;
        let end = if gone { held.sandbox().ended() } else { None };
        let (usage, remains) = match end {
            Some(end) => (Some(end.usage), Some(end.remains)),
            None => (held.sandbox().usage().await, None),
        };
        let usage = usage.map_or_else(Usage::default, |total| held.bill(total));
        Ended { outcome, usage, remains, log }
    }

    /// Puts the end of a step on record, then tells of it.
    async fn end_step(&self, step: Step, ended: Ended, events: mpsc::Sender<ExecEvent>) {
        let Ended { outcome, usage, remains, log } = ended;
        let Step { held, busy, execution, name, decides } = step;
        if decides {
            held.count(name.as_deref(), &outcome);
        }
        let (log_bytes, log_dropped) = (log.kept, log.dropped);
        let end = StepEnd { execution, outcome, usage, remains, log_bytes, log_dropped, at: clock::now() };
        self.persist("an execution", || self.store.end_step(&end)).await;
        tracing::info!(
            namespace = %held.namespace(),
            lease.id = %held.id(),
            invocation.id = %held.invocation(),
            execution.id = %execution,
            sandbox.id = held.sandbox().name(),
            step = name.as_deref(),
            outcome = %end.outcome.kind,
            "the execution has ended"
        );
        drop(busy);
        self.leases.step_ended();
        let _ = events.send(ExecEvent::Exited { outcome: end.outcome, log_dropped }).await;
    }
}

impl Ended {
    /// It could not be started.
    fn before(error: SandboxError) -> Self {
        let kind = match error {
            SandboxError::Spawn { .. } => OutcomeKind::InitError,
            _ => OutcomeKind::Lost,
        };
        let outcome = Outcome::because(kind, error.to_string());
        Self { outcome, usage: Usage::default(), remains: None, log: LogTotals::default() }
    }
}

/// What a command may know about itself.
fn facts(step: &Step) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::from([
        ("RUNLET_NAMESPACE".to_owned(), step.held.namespace().to_string()),
        ("RUNLET_INVOCATION".to_owned(), step.held.invocation().to_string()),
        ("RUNLET_EXECUTION".to_owned(), step.execution.to_string()),
        ("RUNLET_CAUSE".to_owned(), step.held.record().cause.kind.as_str().to_owned()),
    ]);
    if let Some((function, revision)) = &step.held.record().function {
        facts.insert("RUNLET_FUNCTION".to_owned(), function.to_string());
        facts.insert("RUNLET_REVISION".to_owned(), revision.to_string());
    }
    facts
}

fn check(command: &Command) -> Result<(), EngineError> {
    let invalid = |reason: &str| Err(EngineError::Invalid(reason.to_owned()));
    if command.argv.first().is_none_or(String::is_empty) {
        return invalid("the command is empty: name a program");
    }
    let texts = command.argv.iter().chain(command.env.keys()).chain(command.env.values()).chain(&command.cwd);
    if texts.chain(command.files.iter().map(|(path, _)| path)).any(|text| text.contains('\0')) {
        return invalid("arguments, environment, directory and paths cannot hold a NUL");
    }
    if command.env.keys().any(|name| name.is_empty() || name.contains('=')) {
        return invalid("the name of a variable cannot be empty or hold `=`");
    }
    Ok(())
}
