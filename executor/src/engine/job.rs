//! A job: one execution that is to be made, and what its code is told about it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use runlet_core::backoff;
use runlet_core::cause::{Cause, CauseKind};
use runlet_core::clock::{self, Timestamp};
use runlet_core::engine::{Network, ResultPiece};
use runlet_core::execution::StartKind;
use runlet_core::id::{DeliveryId, ExecutionId, InvocationId, TriggerId};
use runlet_core::limits::Limits;
use runlet_core::lineage::Lineage;
use runlet_core::manifest::{Destination, EnvValue, Envelope, Manifest, OnLost, Reset, Retry};
use runlet_core::name::{FunctionName, Namespace, RevisionDigest};
use runlet_core::outcome::{Outcome, OutcomeKind};
use runlet_core::secret::Secrets;
use runlet_core::store::function::Function;
use runlet_core::trace::TraceParent;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::mpsc;

use super::{body, envelope};
use crate::admission::{FunctionKey, SandboxKey, Want};
use crate::host::sandbox::{ProcessSpec, SandboxRequest};
use crate::session::{BodyKind, Invocation, Launch, Spout};

/// Where a program finds the context in the sandbox.
const CONTEXT_FILE: &str = "/tmp/runlet-context.json";

/// One execution that is to be made.
pub(super) struct Job {
    pub(super) namespace: Namespace,
    pub(super) function: FunctionName,
    pub(super) revision: RevisionDigest,
    pub(super) manifest: Arc<Manifest>,
    pub(super) invocation: InvocationId,
    pub(super) execution: ExecutionId,
    pub(super) attempt: u32,
    /// Higher first among those of its function.
    pub(super) priority: i16,
    /// Its limits now: those of the revision, with what was set for the function since.
    pub(super) limits: Limits,
    /// Which setting of them that is.
    pub(super) edition: i64,
    /// When it was accepted, or else due.
    pub(super) created_at: Timestamp,
    /// When it had its turn and a place.
    pub(super) seated: OnceLock<Timestamp>,
    /// The fence of its claim; `None` for synchronous calls.
    pub(super) fence: Option<i64>,
    pub(super) cause: Cause,
    pub(super) payload: Bytes,
    pub(super) content_type: Option<String>,
    /// Where a result that comes in pieces goes while it comes.
    pub(super) pieces: Option<mpsc::Sender<ResultPiece>>,
}

impl Job {
    /// A job without a call: what it takes to make a sandbox for a function before anybody asks for it. None of its ids gets on record.
    pub(super) fn ahead(function: &Function, manifest: Arc<Manifest>) -> Self {
        Self {
            namespace: function.namespace.clone(),
            function: function.name.clone(),
            revision: function.revision.clone(),
            limits: function.limits(),
            edition: function.settings.edition(),
            manifest,
            invocation: InvocationId::new(),
            execution: ExecutionId::new(),
            attempt: 1,
            priority: 0,
            created_at: clock::now(),
            seated: OnceLock::new(),
            fence: None,
            cause: Cause::of_kind(CauseKind::Http),
            payload: Bytes::new(),
            content_type: None,
            pieces: None,
        }
    }

    pub(super) fn function_key(&self) -> FunctionKey {
        (self.namespace.clone(), self.function.clone())
    }

    pub(super) fn sandbox_key(&self) -> SandboxKey {
        (self.namespace.clone(), self.revision.clone())
    }

    /// What it needs to start.
    pub(super) fn want(&self) -> Want {
        let want = want(self.function_key(), &self.revision, &self.manifest, &self.limits);
        Want { priority: self.priority, invocation: Some(self.invocation), ..want }
    }

    /// Whether a sandbox may serve it that has served its revision before, and may serve others after it.
    pub(super) fn is_warm(&self) -> bool {
        is_warm(&self.manifest)
    }

    /// What a start in a sandbox is that has served its revision before.
    pub(super) fn start_again(&self) -> StartKind {
        if self.manifest.reset == Reset::Fork { StartKind::Fork } else { StartKind::Warm }
    }

    /// The pause after which it is to be executed again, having ended like this; `None`: it is not. Synchronous calls never are.
    /// Code that has not begun is not run twice by being lost.
    pub(super) fn again_after(&self, outcome: OutcomeKind, began: bool) -> Option<Duration> {
        self.fence?;
        if outcome == OutcomeKind::Lost {
            let wanted = !began || self.manifest.on_lost == OnLost::Retry;
            return wanted.then(|| Retry::after_lost(self.attempt));
        }
        self.manifest.retry.after(outcome, self.attempt, backoff::dice())
    }

    /// Who is told of an end like this. Of a synchronous call nobody is: its caller knows.
    pub(super) fn tells(&self, outcome: OutcomeKind) -> Option<Destination> {
        self.fence?;
        let destination =
            if outcome == OutcomeKind::Ok { &self.manifest.on_success } else { &self.manifest.on_failure };
        destination.clone()
    }

    pub(super) fn sandbox(&self) -> SandboxRequest {
        SandboxRequest {
            namespace: self.namespace.clone(),
            revision: Some(self.revision.clone()),
            runtime: self.manifest.runtime,
            limits: self.limits,
            network: Network::None,
            work: false,
            cache: None,
        }
    }

    /// The function's environment with the secrets looked up.
    ///
    /// # Errors
    /// The outcome of an execution that cannot start, naming the secret that is not there.
    pub(super) fn environment(&self, secrets: &dyn Secrets) -> Result<BTreeMap<String, String>, Outcome> {
        environment(&self.namespace, &self.manifest, secrets)
    }

    /// The runner to start, for runtimes that have one.
    pub(super) fn launch(&self, env: &BTreeMap<String, String>) -> Launch {
        let launch = runlet_runtimes::launch::launch(&self.manifest, env);
        Launch { init: launch.init.clone(), process: launch.into() }
    }

    /// The program to run once, with the facts about this execution in its environment and in a file.
    pub(super) fn program(&self, env: &BTreeMap<String, String>, deadline: Timestamp) -> ProcessSpec {
        let mut process = ProcessSpec::from(runlet_runtimes::launch::launch(&self.manifest, env));
        process.env.extend(self.facts(deadline).into_iter().map(|(name, value)| (name.to_owned(), value)));
        process.env.extend(self.cause.event_variables());
        process.files.push((CONTEXT_FILE.to_owned(), self.context(deadline).get().to_owned()));
        process.stdin = true;
        process
    }

    /// The way from the code to whoever reads the result while it comes.
    pub(super) fn spout(&self) -> Spout {
        let Self { invocation, execution, .. } = *self;
        let begins = move |content_type| ResultPiece::Begins { invocation, execution, content_type };
        self.pieces.clone().map_or_else(Spout::closed, |pieces| Spout::new(pieces, Box::new(begins)))
    }

    /// What a program reads.
    pub(super) fn stdin(&self) -> Bytes {
        match self.manifest.envelope {
            Envelope::Raw => self.payload.clone(),
            Envelope::Cloudevents => envelope::document(self),
        }
    }

    /// The call, for a runner.
    pub(super) fn call(&self, deadline: Timestamp) -> Invocation {
        let (body_kind, body) = match self.manifest.envelope {
            Envelope::Raw => body::event(self.content_type.as_deref(), &self.payload),
            Envelope::Cloudevents => (BodyKind::Json, envelope::document(self)),
        };
        Invocation { context: self.context(deadline), body_kind, body }
    }

    /// What the code is told of it besides the event, as JSON.
    fn context(&self, deadline: Timestamp) -> Box<RawValue> {
        let Cause { kind, trigger, delivery, of, lineage, headers, normalised, trace, .. } = &self.cause;
        let context = Context {
            traceparent: trace.as_ref().map(|trace| &trace.parent),
            tracestate: trace.as_ref().and_then(|trace| trace.state.as_deref()),
            namespace: &self.namespace,
            function: &self.function,
            revision: &self.revision,
            invocation: self.invocation,
            execution: self.execution,
            attempt: self.attempt,
            deadline_ms: deadline.timestamp_millis(),
            memory_limit: self.limits.memory.0,
            cause: Why {
                kind: *kind,
                trigger: *trigger,
                delivery: *delivery,
                of: *of,
                lineage: lineage.as_deref(),
                headers,
                normalised: normalised.as_ref(),
            },
        };
        to_raw_value(&context).expect("the nouns have text keys and no fallible parts")
    }

    fn facts(&self, deadline: Timestamp) -> Vec<(&'static str, String)> {
        let mut facts = vec![
            ("RUNLET_NAMESPACE", self.namespace.to_string()),
            ("RUNLET_FUNCTION", self.function.to_string()),
            ("RUNLET_REVISION", self.revision.to_string()),
            ("RUNLET_INVOCATION", self.invocation.to_string()),
            ("RUNLET_EXECUTION", self.execution.to_string()),
            ("RUNLET_ATTEMPT", self.attempt.to_string()),
            ("RUNLET_DEADLINE_MS", deadline.timestamp_millis().to_string()),
            ("RUNLET_MEMORY_LIMIT", self.limits.memory.0.to_string()),
            ("RUNLET_CAUSE", self.cause.kind.as_str().to_owned()),
            ("RUNLET_CONTEXT", CONTEXT_FILE.to_owned()),
        ];
        facts.extend(self.cause.trigger.map(|id| ("RUNLET_TRIGGER", id.to_string())));
        facts.extend(self.cause.delivery.map(|id| ("RUNLET_DELIVERY", id.to_string())));
        if let Some(trace) = &self.cause.trace {
            facts.push(("TRACEPARENT", trace.parent.to_string()));
            facts.extend(trace.state.clone().map(|state| ("TRACESTATE", state)));
        }
        facts
    }
}

/// What an execution of a function needs to start.
pub(super) fn want(function: FunctionKey, revision: &RevisionDigest, manifest: &Manifest, limits: &Limits) -> Want {
    let namespace = function.0.clone();
    Want {
        reuse: is_warm(manifest).then(|| (namespace.clone(), revision.clone())),
        namespace,
        priority: 0,
        invocation: None,
        function: Some((function, manifest.max_concurrency)),
        slots: manifest.concurrency,
        memory: limits.memory.0,
    }
}

fn is_warm(manifest: &Manifest) -> bool {
    manifest.reset != Reset::Fresh && manifest.runtime.stays()
}

/// The context of a call as runners and programs get it (docs/guide/protocol.md).
#[derive(Serialize)]
struct Context<'a> {
    traceparent: Option<&'a TraceParent>,
    tracestate: Option<&'a str>,
    namespace: &'a Namespace,
    function: &'a FunctionName,
    revision: &'a RevisionDigest,
    invocation: InvocationId,
    execution: ExecutionId,
    attempt: u32,
    deadline_ms: i64,
    memory_limit: u64,
    cause: Why<'a>,
}

/// The part of it that says why.
#[derive(Serialize)]
struct Why<'a> {
    kind: CauseKind,
    trigger: Option<TriggerId>,
    delivery: Option<DeliveryId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<InvocationId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lineage: Option<&'a Lineage>,
    headers: &'a BTreeMap<String, String>,
    normalised: Option<&'a serde_json::Value>,
}

/// The environment that a function's manifest asks for, with the secrets looked up.
///
/// # Errors
/// The outcome of an execution that cannot start, naming the secret that is not there.
pub(super) fn environment(
    namespace: &Namespace,
    manifest: &Manifest,
    secrets: &dyn Secrets,
) -> Result<BTreeMap<String, String>, Outcome> {
    let resolve = |(name, value): (&String, &EnvValue)| match value {
        EnvValue::Plain(text) => Ok((name.clone(), text.clone())),
        EnvValue::Secret(secret) => {
            let failed = |what: &str| {
                let message = format!("the secret `{secret}` (for the variable {name}) {what}");
                Outcome::because(OutcomeKind::InitError, message)
            };
            let value = secrets.get(namespace, secret).ok_or_else(|| {
                failed(&format!(
                    "is not there for namespace `{namespace}`: add [secrets.{secret}] to the server's configuration"
                ))
            })?;
            let text = std::str::from_utf8(value.expose()).ok().filter(|text| !text.contains('\0'));
            let text = text.ok_or_else(|| failed("is no text without NUL, which an environment cannot hold"))?;
            Ok((name.clone(), text.to_owned()))
        }
    };
    manifest.env.iter().map(resolve).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use runlet_core::name::SecretName;
    use runlet_core::secret::Secret;

    #[derive(Debug)]
    struct OneSecret(&'static [u8]);

    impl Secrets for OneSecret {
        fn get(&self, _: &Namespace, name: &SecretName) -> Option<Secret> {
            (name.as_str() == "there").then(|| Secret::new(self.0))
        }
    }

    fn job(env: &str) -> Job {
        let text = format!("schema = 1\nname = \"f\"\nruntime = \"exec\"\nhandler = \"run.sh\"\n[env]\n{env}\n");
        Job {
            namespace: Namespace::default_namespace(),
            function: FunctionName::new("f").unwrap(),
            revision: RevisionDigest::from_sha256(&[7; 32]),
            priority: 0,
            limits: Limits::default(),
            edition: 0,
            created_at: clock::now(),
            seated: OnceLock::new(),
            manifest: Arc::new(Manifest::parse(&text).unwrap()),
            invocation: InvocationId::new(),
            execution: ExecutionId::new(),
            attempt: 2,
            fence: None,
            cause: Cause::of_kind(CauseKind::Webhook),
            payload: Bytes::new(),
            content_type: None,
            pieces: None,
        }
    }

    #[test]
    fn secrets_become_variables_or_a_clear_refusal() {
        let given = job("A = \"plain\"\nB = { secret = \"there\" }").environment(&OneSecret(b"hush")).unwrap();
        assert_eq!(given.into_values().collect::<Vec<_>>(), ["plain", "hush"]);
        for (env, value, expected) in [
            ("B = { secret = \"gone\" }", &b"x"[..], "[secrets.gone]"),
            ("B = { secret = \"there\" }", b"\xff", "the variable B"),
            ("B = { secret = \"there\" }", b"a\0b", "no text without NUL"),
        ] {
            let outcome = job(env).environment(&OneSecret(value)).unwrap_err();
            assert_eq!(outcome.kind, OutcomeKind::InitError);
            let message = outcome.error.unwrap().message;
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_program_is_told_the_same_facts_by_environment_and_file() {
        let job = job("PATH = \"/mine\"");
        let deadline = clock::now();
        let program = job.program(&job.environment(&OneSecret(b"")).unwrap(), deadline);
        let (path, text) = &program.files[0];
        let context: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(program.env["RUNLET_CONTEXT"], *path);
        assert_eq!(program.env["PATH"], "/mine");
        assert_eq!(program.env["RUNLET_EXECUTION"], job.execution.to_string());
        assert_eq!(context["execution"], program.env["RUNLET_EXECUTION"]);
        assert_eq!(context["deadline_ms"].to_string(), program.env["RUNLET_DEADLINE_MS"]);
        assert_eq!(context["cause"]["kind"], "webhook");
        assert!(context["cause"]["delivery"].is_null() && !program.env.contains_key("RUNLET_DELIVERY"));
        assert_eq!(program.argv, ["/var/task/run.sh"]);
    }
}
