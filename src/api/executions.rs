//! Executions: the history, and the output of each.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use runlet_core::cause::CauseKind;
use runlet_core::engine::{LogRead, Stream};
use runlet_core::execution::ExecutionState;
use runlet_core::id::ExecutionId;
use runlet_core::problem::Code;
use runlet_core::store::execution::{Execution, ExecutionFilter};
use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::Api;
use super::errors::ApiError;
use super::input::{Input, answer, input};
use super::invocations::OCTETS;
use crate::http::reply;

/// Longest wait for output of one request.
const WAIT: Duration = Duration::from_secs(30);
/// Most output of one request.
const PIECE: usize = 4 << 20;

const OFFSET: HeaderName = HeaderName::from_static("runlet-log-offset");
const NEXT: HeaderName = HeaderName::from_static("runlet-log-next");
const END: HeaderName = HeaderName::from_static("runlet-log-end");

pub(super) fn filter(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let one = warp::path::param::<String>;
    let list = warp::get().and(input(api)).then(|input| answer(list(input)));
    let show = warp::get().and(one()).and(input(api)).then(|id, input| answer(show(id, input)));
    let logs = warp::get().and(one()).and(warp::path("logs")).and(input(api)).then(|id, input| answer(logs(id, input)));
    warp::path("executions").and(list.or(show).unify().or(logs).unify()).boxed()
}

fn checked(id: &str) -> Result<ExecutionId, ApiError> {
    id.parse().map_err(|error: runlet_core::id::BadId| ApiError::invalid(error.to_string()))
}

/// The door to look at: for CI systems there is but one.
fn cause(input: &Input, wanted: Option<CauseKind>) -> Result<Option<CauseKind>, ApiError> {
    match wanted {
        wanted if !input.caller.only_ci => Ok(wanted),
        None | Some(CauseKind::Ci) => Ok(Some(CauseKind::Ci)),
        Some(other) => {
            let detail = format!("a token with the role ci sees jobs only: leave `cause={}` out", other.as_str());
            Err(ApiError::new(Code::Forbidden, detail))
        }
    }
}

/// An execution that the caller may see.
async fn fetch(input: &Input, id: ExecutionId) -> Result<Execution, ApiError> {
    let execution = input.api.store.execution(input.namespace(), id).await?;
    let seen = execution.filter(|execution| !input.caller.only_ci || execution.cause == CauseKind::Ci);
    seen.ok_or_else(|| ApiError::not_found("execution", id))
}

async fn list(input: Input) -> Result<Response, ApiError> {
    let query = input.query(&["function", "invocation", "state", "cause", "since", "before", "limit"])?;
    let limit = query.limit(100, 1000)?;
    let filter = ExecutionFilter {
        function: query.read("function")?,
        invocation: query.read("invocation")?,
        state: query.word("state", &ExecutionState::ALL, ExecutionState::as_str)?,
        cause: cause(&input, query.word("cause", &CauseKind::ALL, CauseKind::as_str)?)?,
        since: query.since("since")?,
        before: query.read("before")?,
        limit: i64::try_from(limit + 1).unwrap_or(i64::MAX),
    };
    let mut executions = input.api.store.executions(input.namespace(), &filter).await?;
    let more = executions.len() > limit;
    executions.truncate(limit);
    let next = executions.last().filter(|_| more).map(|last| last.id.to_string());
    Ok(reply::page("executions", &executions, next))
}

async fn show(id: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let id = checked(&id)?;
    Ok(reply::envelope("execution", &fetch(&input, id).await?))
}

async fn logs(id: String, input: Input) -> Result<Response, ApiError> {
    let query = input.query(&["stream", "offset", "limit", "wait"])?;
    let execution = checked(&id)?;
    let stream = query.word("stream", &[Stream::Stdout, Stream::Stderr], Stream::as_str)?.unwrap_or(Stream::Stdout);
    let offset = query.read::<u64>("offset")?.unwrap_or(0);
    if i64::try_from(offset).is_err() {
        return Err(ApiError::invalid("query key `offset`: no stream is that long"));
    }
    let limit = query.limit(1 << 20, PIECE)?;
    let patience = query.wait(WAIT)?;
    if input.caller.only_ci {
        fetch(&input, execution).await?;
    }
    let read = LogRead { execution, stream, offset, limit, patience };
    let engine = &input.api.engine;
    let piece = match input.until_stopping(patience, engine.logs(input.namespace(), read)).await {
        Some(piece) => piece?,
        // The server stops: what is there by now, without waiting.
        None => engine.logs(input.namespace(), LogRead { patience: Duration::ZERO, ..read }).await?,
    };
    let next = offset + piece.bytes.len() as u64;
    let mut response = reply::bytes(OCTETS, piece.bytes);
    let headers = response.headers_mut();
    headers.insert(OFFSET, HeaderValue::from(offset));
    headers.insert(NEXT, HeaderValue::from(next));
    headers.insert(END, HeaderValue::from_static(if piece.end { "true" } else { "false" }));
    Ok(response)
}
