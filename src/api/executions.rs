//! Executions: the history, and the output of each.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{ACCEPT, HeaderName, HeaderValue};
use runlet_core::cause::CauseKind;
use runlet_core::engine::{LogRead, Stream};
use runlet_core::execution::ExecutionState;
use runlet_core::id::{ExecutionId, InvocationId};
use runlet_core::name::FunctionName;
use runlet_core::problem::{Code, Problem};
use runlet_core::store::execution::{Execution, ExecutionFilter};
use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::errors::ApiError;
use super::input::{Input, answer, input};
use super::invocations::OCTETS;
use super::shapes::Octets;
use super::{Api, events};
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

/// A page of executions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExecutionPage {
    executions: Vec<Execution>,
    /// What goes into `before` for the next page; missing on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// An execution.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExecutionBody {
    execution: Execution,
}

/// Whether a client asks for server-sent events; whoever takes anything gets bytes.
fn wants_events(accept: &str) -> bool {
    accept.split(',').any(|part| {
        let media = part.split(';').next().unwrap_or_default().trim();
        media.eq_ignore_ascii_case("text/event-stream")
    })
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

/// List executions, newest first
#[utoipa::path(
    get,
    path = "/v1/executions",
    tag = "history",
    params(
        ("function" = Option<FunctionName>, Query, description = "Only of this function"),
        ("invocation" = Option<InvocationId>, Query, description = "Only of this invocation"),
        ("state" = Option<ExecutionState>, Query, description = "Only in this state"),
        ("cause" = Option<CauseKind>, Query, description = "Only those that came in by this door"),
        ("since" = Option<String>, Query, description = "Only since a moment, or so long ago", example = "1h"),
        ("before" = Option<ExecutionId>, Query, description = "`next` of the page before"),
        ("limit" = Option<u32>, Query, description = "At most so many; 100 unless given", minimum = 1, maximum = 1000)
    ),
    responses(
        (status = 200, description = "A page", body = ExecutionPage)
    )
)]
pub(super) async fn list(input: Input) -> Result<Response, ApiError> {
    let query = input.query(&["function", "invocation", "state", "cause", "since", "before", "limit"])?;
    let page = query.page()?;
    let filter = ExecutionFilter {
        function: query.read("function")?,
        invocation: query.read("invocation")?,
        state: query.word("state", &ExecutionState::ALL, ExecutionState::as_str)?,
        cause: cause(&input, query.word("cause", &CauseKind::ALL, CauseKind::as_str)?)?,
        since: query.since("since")?,
        before: query.read("before")?,
        limit: page.rows(),
    };
    let mut executions = input.api.store.executions(input.namespace(), &filter).await?;
    let next = page.cut(&mut executions, |last| last.id);
    Ok(reply::json(StatusCode::OK, &ExecutionPage { executions, next }))
}

/// Show an execution
#[utoipa::path(
    get,
    path = "/v1/executions/{id}",
    tag = "history",
    params(
        ("id" = ExecutionId, Path, description = "Id of the execution")
    ),
    responses(
        (status = 200, description = "The execution as it is now", body = ExecutionBody),
        (status = 404, description = "There is no such execution", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show(id: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let id = checked(&id)?;
    let execution = fetch(&input, id).await?;
    Ok(reply::json(StatusCode::OK, &ExecutionBody { execution }))
}

/// Read the output of an execution, or follow it
///
/// With `Accept: text/event-stream` the output comes as events `stdout` and `stderr`, each with its offset and `text` (or
/// `base64`, where it is not UTF-8), and last `end`. A reader that was cut off goes on with `Last-Event-ID`.
#[utoipa::path(
    get,
    path = "/v1/executions/{id}/logs",
    tag = "history",
    params(
        ("id" = ExecutionId, Path, description = "Id of the execution"),
        ("stream" = Option<Stream>, Query, description = "Which stream; `stdout` unless given, both for events"),
        ("offset" = Option<u64>, Query, description = "From which byte on"),
        ("limit" = Option<u32>, Query, description = "At most so many bytes; 1 MiB unless given", minimum = 1, maximum = 4194304),
        ("wait" = Option<String>, Query, description = "Wait for the first byte, at most so long; 30 s at most", example = "10s"),
        ("Last-Event-ID" = Option<String>, Header, description = "With events: go on behind this one")
    ),
    responses(
        (status = 200, description = "Bytes of one stream; `Runlet-Log-Next` is the next offset, `Runlet-Log-End` says whether anything follows", content((Octets = "application/octet-stream"), (String = "text/event-stream"))),
        (status = 204, description = "With events: the last one was sent before"),
        (status = 404, description = "There is no such execution", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn logs(id: String, input: Input) -> Result<Response, ApiError> {
    let query = input.query(&["stream", "offset", "limit", "wait"])?;
    let execution = checked(&id)?;
    let stream = query.word("stream", &[Stream::Stdout, Stream::Stderr], Stream::as_str)?;
    let offset = query.read::<u64>("offset")?.unwrap_or(0);
    if i64::try_from(offset).is_err() {
        return Err(ApiError::invalid("query key `offset`: no stream is that long"));
    }
    let limit = query.limit(1 << 20, PIECE)?;
    let patience = query.wait(WAIT)?;
    if input.caller.only_ci {
        fetch(&input, execution).await?;
    }
    if input.header(ACCEPT).is_some_and(wants_events) {
        return events::follow(input, execution, stream, offset).await;
    }
    let stream = stream.unwrap_or(Stream::Stdout);
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
