//! `runlet show`: all that is on record about one invocation, execution or delivery.

use clap::Args;
use runlet_core::cause::{Cause, CauseKind, CiJob};
use runlet_core::clock;
use runlet_core::engine::Explanation;
use runlet_core::execution::StartKind;
use runlet_core::invocation::InvocationState;
use runlet_core::outcome::Outcome;
use runlet_core::store::delivery::Delivery;
use runlet_core::store::execution::{Execution, Invocation};

use super::errors::{CliError, outcome_lines};
use super::id::{AnyId, RunId};
use super::output::{self, Fields};
use super::session::{Session, field};
use super::words;
use crate::client::Call;

/// Largest result that is shown with the rest.
const RESULT_MAX: usize = 4096;

/// What `show` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  runlet show exe_06fcy5swzhp7d2w7k3s6cdyj1m
  runlet show dlv_06fcy5swzhp7d2w7k3s6cdyj1m --json")]
pub(crate) struct ShowArgs {
    /// inv_..., exe_... or dlv_...
    #[arg(value_name = "ID")]
    id: AnyId,
}

/// Shows it.
pub(crate) async fn run(session: &Session, args: &ShowArgs) -> Result<(), CliError> {
    let path = match args.id {
        AnyId::Run(RunId::Invocation(id)) => format!("/v1/invocations/{id}"),
        AnyId::Run(RunId::Execution(id)) => format!("/v1/executions/{id}"),
        AnyId::Delivery(id) => format!("/v1/deliveries/{id}"),
    };
    let answer = session.ask(Call::get(path)).await?;
    if session.json {
        return output::document(&answer.body);
    }
    match args.id {
        AnyId::Run(RunId::Invocation(_)) => invocation(session, &field(&answer, "invocation")?).await?.print(),
        AnyId::Run(RunId::Execution(_)) => execution(&field(&answer, "execution")?).print(),
        AnyId::Delivery(_) => delivery(&field(&answer, "delivery")?).print(),
    }
}

async fn invocation(session: &Session, invocation: &Invocation) -> Result<Fields, CliError> {
    let id = invocation.id;
    let mut fields = Fields::default();
    fields.add("invocation", id);
    fields.add_if("function", invocation.function.as_ref());
    fields.add_if("revision", invocation.revision.as_ref());
    let dead = if invocation.dead_letter { " (dead letter)" } else { "" };
    fields.add("state", format!("{}{dead}", invocation.state));
    if matches!(invocation.state, InvocationState::Queued | InvocationState::Held) {
        let call = Call::get(format!("/v1/invocations/{id}/explain"));
        let why: Explanation = session.ask_for(call, "explanation").await?;
        fields.add("why", why.reason);
    }
    add_outcome(&mut fields, invocation.outcome.as_ref());
    add_cause(&mut fields, &invocation.cause);
    // A lease has commands instead: each has its input and output on its own.
    let is_lease = matches!(invocation.cause.kind, CauseKind::Ci | CauseKind::Lease);
    if !is_lease {
        let kind = invocation.content_type.as_deref().unwrap_or("no content type");
        fields.add("payload", format!("{}, {kind}", words::size(invocation.payload_size)));
    }
    if invocation.state == InvocationState::Succeeded && !is_lease {
        fields.add("result", result(session, &format!("/v1/invocations/{id}/result")).await?);
    }
    let executions: Vec<String> = invocation.executions.iter().map(ToString::to_string).collect();
    fields.add_if("executions", (!executions.is_empty()).then(|| executions.join("\n")));
    fields.add("accepted", words::moment(invocation.created_at));
    fields.add_if("ended", invocation.finished_at.map(words::moment));
    Ok(fields)
}

/// The result if it is short text, else what it is.
async fn result(session: &Session, path: &str) -> Result<String, CliError> {
    let answer = match session.ask(Call::get(path)).await {
        Err(CliError::Problem { problem, .. }) if problem.code == runlet_core::problem::Code::NotFound => {
            return Ok("none".to_owned());
        }
        answer => answer?,
    };
    Ok(match std::str::from_utf8(&answer.body) {
        Ok(text) if text.len() <= RESULT_MAX => text.to_owned(),
        _ => format!("{}: GET {path}", words::size(u64::try_from(answer.body.len()).unwrap_or(u64::MAX))),
    })
}

fn execution(execution: &Execution) -> Fields {
    let mut fields = Fields::default();
    fields.add("execution", execution.id);
    fields.add("invocation", execution.invocation);
    fields.add("attempt", execution.attempt);
    fields.add_if("function", execution.function.as_ref());
    fields.add_if("revision", execution.revision.as_ref());
    fields.add_if("step", execution.step.as_ref());
    fields.add("cause", execution.cause.as_str());
    fields.add("state", execution.state);
    add_outcome(&mut fields, execution.outcome.as_ref());
    fields.add("duration", words::duration(execution, clock::now()));
    let start = execution.start.map_or("not yet", StartKind::as_str);
    fields.add(
        "sandbox",
        format!("{} ({start}, reset {})", execution.sandbox.as_deref().unwrap_or("-"), execution.reset.as_str()),
    );
    let span = |us: Option<i64>| {
        us.and_then(|us| u64::try_from(us).ok()).map(std::time::Duration::from_micros).map(words::span)
    };
    fields.add_if("waited", span(execution.usage.wait_us));
    fields.add_if("start took", span(execution.usage.start_us));
    fields.add_if("cpu time", span(execution.usage.cpu_us));
    let peak = execution.usage.memory_peak.and_then(|bytes| u64::try_from(bytes).ok());
    fields.add_if("memory peak", peak.map(words::size));
    fields.add_if(
        "remains",
        execution.remains.as_ref().map(|left| {
            if left.is_gone() {
                return "nothing: all of the sandbox is gone".to_owned();
            }
            let (processes, cgroups) = (left.processes, left.cgroups);
            format!(
                "{processes} processes, {cgroups} cgroups, {} mounts, {} network namespaces",
                left.mounts, left.netns
            )
        }),
    );
    let dropped = (execution.log_dropped > 0).then(|| format!(", {} dropped", words::size(execution.log_dropped)));
    fields.add("output", format!("{}{}", words::size(execution.log_bytes), dropped.unwrap_or_default()));
    fields.add("accepted", words::moment(execution.created_at));
    fields.add_if("started", execution.started_at.map(words::moment));
    fields.add_if("ended", execution.finished_at.map(words::moment));
    fields.add("logs", format!("runlet logs {}", execution.id));
    fields
}

fn delivery(delivery: &Delivery) -> Fields {
    let mut fields = Fields::default();
    fields.add("delivery", delivery.id);
    fields.add("hook", format!("/hooks/{}/{} ({})", delivery.namespace, delivery.path, delivery.adapter));
    fields.add_if("event", delivery.event.as_ref());
    fields.add_if("sender's id", delivery.provider_id.as_ref());
    fields.add("verdict", delivery.verdict.as_str());
    fields.add_if("why", (!delivery.reasons.is_empty()).then(|| delivery.reasons.join("\n")));
    let invocations: Vec<String> = delivery.invocations.iter().map(ToString::to_string).collect();
    fields.add_if("invocations", (!invocations.is_empty()).then(|| invocations.join("\n")));
    fields.add("received", format!("{} from {}", words::moment(delivery.received_at), delivery.source));
    fields.add("body", format!("{}, {} kept", words::size(delivery.body_size), words::size(delivery.body_kept)));
    let headers: Vec<String> = delivery.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    fields.add_if("headers", (!headers.is_empty()).then(|| headers.join("\n")));
    fields
}

fn add_outcome(fields: &mut Fields, outcome: Option<&Outcome>) {
    let text = outcome.map(outcome_lines);
    fields.add_if("outcome", text.as_deref().and_then(|text| text.strip_prefix("outcome: ")).map(str::trim_end));
}

fn add_cause(fields: &mut Fields, cause: &Cause) {
    let mut text = cause.kind.as_str().to_owned();
    let trigger = cause.trigger.map(|id| id.to_string());
    let delivery = cause.delivery.map(|id| id.to_string());
    let of = cause.of.map(|id| id.to_string());
    for id in [trigger, delivery, of].into_iter().flatten() {
        text.push(' ');
        text.push_str(&id);
    }
    fields.add("cause", text);
    if let Some(job) = &cause.job {
        add_job(fields, job);
    }
}

fn add_job(fields: &mut Fields, job: &CiJob) {
    let name = job.name.as_ref().map_or_else(String::new, |name| format!(" {name}"));
    fields.add("job", format!("{} {}{name}", job.provider, job.id));
    fields.add_if("project", job.project.as_ref().or(job.project_id.as_ref()));
    fields.add_if("pipeline", job.pipeline.as_ref());
    fields.add_if("ref", job.r#ref.as_ref());
    fields.add_if("commit", job.sha.as_ref());
    fields.add_if("link", job.url.as_ref());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_failed_execution_is_shown_with_its_error_and_what_was_left() {
        let record = json!({
            "id": "exe_00000000000000000000000000", "invocation": "inv_00000000000000000000000000",
            "namespace": "default", "function": "f", "revision": format!("sha256:{}", "0".repeat(64)),
            "cause": "webhook", "attempt": 2, "state": "failed", "start": "cold", "sandbox": "rl-1", "reset": "fresh",
            "outcome": { "kind": "exit", "exit_code": 3, "error": { "type": "exit", "message": "ended with status 3" } },
            "usage": { "cpu_us": 120_000, "memory_peak": 9_437_184 },
            "remains": { "processes": 0, "cgroups": 0, "mounts": 0, "netns": 0 },
            "log_bytes": 2048, "log_dropped": 5, "created_at": "2026-01-01T00:00:00Z",
            "started_at": "2026-01-01T00:00:01Z", "finished_at": "2026-01-01T00:00:02.5Z",
        });
        let record: Execution = serde_json::from_value(record).expect("an execution");
        insta::assert_snapshot!(execution(&record).text(), @r"
        execution:    exe_00000000000000000000000000
        invocation:   inv_00000000000000000000000000
        attempt:      2
        function:     f
        revision:     sha256:0000000000000000000000000000000000000000000000000000000000000000
        cause:        webhook
        state:        failed
        outcome:      exit 3
                        ended with status 3
        duration:     1.50s
        sandbox:      rl-1 (cold, reset fresh)
        cpu time:     120ms
        memory peak:  9.0 MiB
        remains:      nothing: all of the sandbox is gone
        output:       2.0 KiB, 5 B dropped
        accepted:     2026-01-01 00:00:00 UTC
        started:      2026-01-01 00:00:01 UTC
        ended:        2026-01-01 00:00:02 UTC
        logs:         runlet logs exe_00000000000000000000000000
        ");
    }

    #[test]
    fn a_refused_delivery_is_shown_with_the_reason() {
        let record = json!({
            "id": "dlv_00000000000000000000000000", "namespace": "default", "path": "gh", "adapter": "github",
            "provider_id": "72d3162e", "event": "push", "headers": { "x-github-event": "push", "x": "a\u{1b}[2J" },
            "source": "127.0.0.1:4000", "body_size": 7000, "body_kept": 0, "verdict": "bad_signature",
            "reasons": ["the signature does not match"], "invocations": [], "received_at": "2026-01-01T00:00:00Z",
        });
        let record: Delivery = serde_json::from_value(record).expect("a delivery");
        insta::assert_snapshot!(delivery(&record).text(), @r"
        delivery:     dlv_00000000000000000000000000
        hook:         /hooks/default/gh (github)
        event:        push
        sender's id:  72d3162e
        verdict:      bad_signature
        why:          the signature does not match
        received:     2026-01-01 00:00:00 UTC from 127.0.0.1:4000
        body:         6.8 KiB, 0 B kept
        headers:      x: a\u{1b}[2J
                      x-github-event: push
        ");
    }
}
