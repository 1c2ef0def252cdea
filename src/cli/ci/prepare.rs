//! `prepare`: a sandbox for the job, waited for with a line in its log now and then.

use std::time::Duration;

use runlet_core::engine::Lease;
use runlet_core::problem::Code;
use runlet_core::unit::Span;
use runlet_integrations::gitlab_ci::{Job, Wishes};
use serde_json::json;
use tokio::time::Instant;

use super::super::errors::CliError;
use super::super::output;
use super::super::session::{Session, field};
use super::gitlab::{Ended, Trouble, env, response, say};
use crate::client::Call;

/// When it is first said that the job waits, and how often after that.
const FIRST: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_secs(10);

/// Leases, and says what the job got.
pub(super) async fn run(session: &Session) -> Result<Ended, Trouble> {
    let job = Job::read(&env, response()?.as_deref())?;
    let wishes = Wishes::read(&env)?;
    let call = Call::post("/v1/leases")
        .header("content-type", "application/json")
        .body(request(&job, &wishes).to_string())
        .patient();
    let answer = waiting(session.ask(call)).await.map_err(|error| refused(error, &wishes))?;
    let lease: Lease = field(&answer, "lease")?;
    for note in field::<Vec<String>>(&answer, "notes")? {
        say(&note);
    }
    let limits = lease.limits;
    let line = format!(
        "runlet: sandbox {} is ready (memory {}, cpu {}, pids {}, network {}, job {})",
        lease.id,
        limits.memory,
        limits.cpu,
        limits.pids,
        lease.network.as_str(),
        lease.invocation
    );
    output::line(&line)?;
    Ok(Ended::Well)
}

fn request(job: &Job, wishes: &Wishes) -> serde_json::Value {
    let mut limits = serde_json::Map::new();
    if let Some(memory) = wishes.memory {
        limits.insert("memory".to_owned(), json!(memory));
    }
    if let Some(cpu) = wishes.cpu {
        limits.insert("cpu".to_owned(), json!(cpu));
    }
    if let Some(pids) = wishes.pids {
        limits.insert("pids".to_owned(), json!(pids));
    }
    if let Some(tmp) = wishes.tmp {
        limits.insert("tmp".to_owned(), json!(tmp));
    }
    let masks: Vec<_> = job.masks.iter().map(|mask| String::from_utf8_lossy(mask.expose()).into_owned()).collect();
    let mut request = json!({"key": job.key, "job": job.facts, "limits": limits, "masks": masks});
    if let Some(timeout) = job.timeout {
        request["timeout"] = json!(Span(timeout));
    }
    if let Some(cache) = &job.cache {
        request["cache"] = json!(cache);
    }
    request
}

/// Waits for `asked`, and says so.
async fn waiting<T>(asked: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let mut next = start + FIRST;
    let mut asked = std::pin::pin!(asked);
    loop {
        tokio::select! {
            answer = &mut asked => return answer,
            () = tokio::time::sleep_until(next) => {
                say(&format!("waiting for room on this host, {} s so far", start.elapsed().as_secs()));
                next += AGAIN;
            }
        }
    }
}

/// Wishes that cannot be granted are the job's own fault: trying again changes nothing.
fn refused(error: CliError, wishes: &Wishes) -> Trouble {
    match error {
        CliError::Problem { problem, .. } if problem.code == Code::Invalid && *wishes != Wishes::default() => {
            Trouble::Refused(format!("RUNLET_CI_*: {}", problem.detail))
        }
        error => error.into(),
    }
}
