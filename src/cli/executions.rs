//! `runlet executions`: the history.

use clap::Args;
use runlet_core::cause::CauseKind;
use runlet_core::clock;
use runlet_core::execution::{ExecutionState, StartKind};
use runlet_core::name::FunctionName;
use runlet_core::store::execution::Execution;
use runlet_core::unit::Span;

use super::errors::CliError;
use super::output::Table;
use super::page::{Listing, Rows};
use super::session::Session;
use super::words;
use crate::client::Call;

/// What `executions` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  runlet executions --function on-push --since 1h
  runlet executions --cause ci --state running
  runlet executions --state failed --limit 5 --json")]
pub(crate) struct ExecutionsArgs {
    /// Only of this function
    #[arg(long, value_name = "NAME")]
    function: Option<FunctionName>,
    /// Only in this state: starting, running, succeeded, failed, cancelled or lost
    #[arg(long, value_parser = state)]
    state: Option<ExecutionState>,
    /// Only by this door: http, webhook, cron, queue, ci, rerun or lease
    #[arg(long, value_parser = cause)]
    cause: Option<CauseKind>,
    /// Only since a span ago (30m, 2h, 7d) or a moment (2026-01-31T08:00:00Z)
    #[arg(long, value_name = "SPAN|TIME", value_parser = since)]
    since: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// Lists executions, newest first.
pub(crate) async fn run(session: &Session, args: &ExecutionsArgs) -> Result<(), CliError> {
    let listing = Listing { key: "executions", cursor: "before" };
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let rows = Rows::fetch(session, listing, limit, || {
        Call::get("/v1/executions")
            .query_if("function", args.function.as_ref())
            .query_if("state", args.state)
            .query_if("cause", args.cause.map(CauseKind::as_str))
            .query_if("since", args.since.as_ref())
    })
    .await?;
    if session.json {
        return rows.print_json();
    }
    table(&rows.read()?, clock::now()).print("no executions here: `runlet invoke NAME` makes one")
}

fn table(executions: &[Execution], now: clock::Timestamp) -> Table<8> {
    let mut table = Table::new(["ID", "FUNCTION", "STEP", "CAUSE", "STATE", "START", "DURATION", "AGE"]);
    for execution in executions {
        table.row([
            execution.id.to_string(),
            execution.function.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            execution.step.clone().unwrap_or_else(|| "-".to_owned()),
            execution.cause.as_str().to_owned(),
            words::state(execution.state, execution.outcome.as_ref()),
            execution.start.map_or("-", StartKind::as_str).to_owned(),
            words::duration(execution, now),
            words::age(execution.created_at, now),
        ]);
    }
    table
}

fn state(text: &str) -> Result<ExecutionState, String> {
    ExecutionState::parse(text).ok_or_else(|| {
        let all: Vec<&str> = ExecutionState::ALL.into_iter().map(ExecutionState::as_str).collect();
        format!("write one of {}", all.join(", "))
    })
}

fn cause(text: &str) -> Result<CauseKind, String> {
    CauseKind::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
        let all: Vec<&str> = CauseKind::ALL.into_iter().map(CauseKind::as_str).collect();
        format!("write one of {}", all.join(", "))
    })
}

/// The server reads both forms itself; here they are only checked, so that a typo needs no server.
fn since(text: &str) -> Result<String, String> {
    if text.parse::<Span>().is_ok() || chrono::DateTime::parse_from_rfc3339(text).is_ok() {
        return Ok(text.to_owned());
    }
    Err("write a span such as 30m, 2h or 7d, or a moment such as 2026-01-31T08:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use runlet_core::execution::Usage;
    use runlet_core::manifest::Reset;
    use runlet_core::name::{Namespace, RevisionDigest};
    use runlet_core::outcome::{Outcome, OutcomeKind};

    fn execution(function: &str, outcome: Option<Outcome>, now: clock::Timestamp, millis: i64) -> Execution {
        Execution {
            id: uuid::Uuid::nil().into(),
            invocation: uuid::Uuid::nil().into(),
            namespace: Namespace::default_namespace(),
            function: function.parse().ok(),
            revision: Some(RevisionDigest::from_sha256(&[7; 32])),
            cause: CauseKind::Webhook,
            attempt: 1,
            step: None,
            state: outcome.as_ref().map_or(ExecutionState::Running, |outcome| ExecutionState::of_outcome(outcome.kind)),
            start: Some(StartKind::Cold),
            sandbox: None,
            reset: Reset::Warm,
            usage: Usage::default(),
            remains: None,
            log_bytes: 0,
            log_dropped: 0,
            created_at: now - TimeDelta::seconds(90),
            started_at: Some(now - TimeDelta::seconds(30)),
            finished_at: outcome.is_some().then(|| now - TimeDelta::seconds(30) + TimeDelta::milliseconds(millis)),
            outcome,
        }
    }

    #[test]
    fn the_table_tells_what_ran_and_how_it_ended() {
        let now = clock::now();
        let job = execution("a", Some(Outcome::ok()), now, 12);
        let waiting = Execution { started_at: None, start: None, ..execution("on-push", None, now, 0) };
        let executions = [
            Execution { state: ExecutionState::Starting, ..waiting },
            execution("on-push", None, now, 0),
            execution("a", Some(Outcome::ok()), now, 12),
            execution("a", Some(Outcome::of(OutcomeKind::Timeout)), now, 10_004),
            Execution { function: None, step: Some("build_script".to_owned()), cause: CauseKind::Ci, ..job },
        ];
        insta::assert_snapshot!(table(&executions, now).text(), @r"
        ID                              FUNCTION  STEP          CAUSE    STATE             START  DURATION  AGE
        exe_00000000000000000000000000  on-push   -             webhook  starting          -      -         1m
        exe_00000000000000000000000000  on-push   -             webhook  running           cold   30.00s    1m
        exe_00000000000000000000000000  a         -             webhook  succeeded         cold   12ms      1m
        exe_00000000000000000000000000  a         -             webhook  failed (timeout)  cold   10.00s    1m
        exe_00000000000000000000000000  -         build_script  ci       succeeded         cold   12ms      1m
        ");
    }

    #[test]
    fn since_takes_spans_and_moments() {
        for text in ["30m", "7d", "2026-01-31T08:00:00Z", "2026-01-31T08:00:00+01:00"] {
            assert_eq!(since(text), Ok(text.to_owned()));
        }
        for text in ["", "yesterday", "2026-01-31", "1.5h"] {
            assert!(since(text).is_err(), "{text}");
        }
    }
}
