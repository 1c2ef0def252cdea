//! Invocations: look at one, wait for it, fetch what went in and came out, cancel it.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderValue;
use runlet_core::cause::CauseKind;
use runlet_core::engine::Explanation;
use runlet_core::id::InvocationId;
use runlet_core::problem::{Code, Problem};
use runlet_core::store::execution::Invocation;
use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::Api;
use super::errors::ApiError;
use super::input::{Input, answer, input};
use super::rerun::rerun;
use super::shapes::{Anything, Octets};
use crate::http::reply;

/// Longest wait of one request.
const WAIT: Duration = Duration::from_secs(60);
/// For bytes whose type is not known.
pub(super) const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

pub(super) fn filter(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let one = warp::path::param::<String>;
    let show = warp::get().and(one()).and(input(api)).then(|id, input| answer(show(id, input)));
    let part = |name: &'static str| warp::get().and(one()).and(warp::path(name)).and(input(api));
    let result = part("result").then(|id, input| answer(result(id, input)));
    let payload = part("payload").then(|id, input| answer(payload(id, input)));
    let explain = part("explain").then(|id, input| answer(explain(id, input)));
    let cancel =
        warp::post().and(one()).and(warp::path("cancel")).and(input(api)).then(|id, input| answer(cancel(id, input)));
    let again =
        warp::post().and(one()).and(warp::path("rerun")).and(input(api)).then(|id, input| answer(rerun(id, input)));
    let routes = show.or(result).unify().or(payload).unify().or(explain).unify().or(cancel).unify().or(again).unify();
    warp::path("invocations").and(routes).boxed()
}

/// An invocation.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InvocationBody {
    invocation: Invocation,
}

/// Why an invocation waits.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExplanationBody {
    explanation: Explanation,
}

pub(super) fn checked(id: &str) -> Result<InvocationId, ApiError> {
    id.parse().map_err(|error: runlet_core::id::BadId| ApiError::invalid(error.to_string()))
}

pub(super) async fn fetch(input: &Input, id: InvocationId) -> Result<Invocation, ApiError> {
    let invocation = input.api.store.invocation(input.namespace(), id).await?;
    let seen = invocation.filter(|invocation| !input.caller.only_ci || invocation.cause.kind == CauseKind::Ci);
    seen.ok_or_else(|| ApiError::not_found("invocation", id))
}

/// Show an invocation, or wait for its end
#[utoipa::path(
    get,
    path = "/v1/invocations/{id}",
    tag = "calls",
    params(
        ("id" = InvocationId, Path, description = "Id of the invocation"),
        ("wait" = Option<String>, Query, description = "Wait until it has ended, at most so long: \"30s\"; 60 s at most", example = "30s")
    ),
    responses(
        (status = 200, description = "The invocation as it is now", body = InvocationBody),
        (status = 404, description = "There is no such invocation", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show(id: String, input: Input) -> Result<Response, ApiError> {
    let patience = input.query(&["wait"])?.wait(WAIT)?;
    let id = checked(&id)?;
    if !patience.is_zero() {
        let waiting = input.api.engine.wait(input.namespace(), id, patience);
        // A server that stops ends the wait early: the state as it is then is an answer too.
        input.until_stopping(patience, waiting).await.transpose()?;
    }
    Ok(reply::json(StatusCode::OK, &InvocationBody { invocation: fetch(&input, id).await? }))
}

/// Fetch what an invocation returned
#[utoipa::path(
    get,
    path = "/v1/invocations/{id}/result",
    tag = "calls",
    params(
        ("id" = InvocationId, Path, description = "Id of the invocation")
    ),
    responses(
        (status = 200, description = "The result, with the content type that the function gave it", content_type = "*/*", body = Anything),
        (status = 404, description = "There is no such invocation, or it has no result", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn result(id: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let id = checked(&id)?;
    let result = input.api.store.result(input.namespace(), id).await?;
    let (bytes, kind) = result.ok_or_else(|| ApiError::not_found("result of invocation", id))?;
    Ok(reply::bytes(HeaderValue::from_str(&kind).unwrap_or(OCTETS), bytes))
}

/// Fetch what an invocation was given
#[utoipa::path(
    get,
    path = "/v1/invocations/{id}/payload",
    tag = "calls",
    params(
        ("id" = InvocationId, Path, description = "Id of the invocation")
    ),
    responses(
        (status = 200, description = "The bytes as received", content_type = "application/octet-stream", body = Octets),
        (status = 404, description = "There is no such invocation", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn payload(id: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let id = checked(&id)?;
    let payload = input.api.store.payload(input.namespace(), id).await?;
    let bytes = payload.ok_or_else(|| ApiError::not_found("payload of invocation", id))?;
    // A stranger chose the content type of what he sent: it is not handed on, so that no browser acts on it.
    Ok(reply::bytes(OCTETS, bytes))
}

/// Say why an invocation waits
#[utoipa::path(
    get,
    path = "/v1/invocations/{id}/explain",
    tag = "calls",
    params(
        ("id" = InvocationId, Path, description = "Id of the invocation")
    ),
    responses(
        (status = 200, description = "The reason, in one sentence", body = ExplanationBody),
        (status = 404, description = "There is no such invocation", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn explain(id: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let explanation = input.api.engine.explain(input.namespace(), checked(&id)?).await?;
    Ok(reply::json(StatusCode::OK, &ExplanationBody { explanation }))
}

/// Cancel an invocation
///
/// One that waits never starts, one that runs is killed.
#[utoipa::path(
    post,
    path = "/v1/invocations/{id}/cancel",
    tag = "calls",
    params(
        ("id" = InvocationId, Path, description = "Id of the invocation")
    ),
    responses(
        (status = 200, description = "The invocation as it is now", body = InvocationBody),
        (status = 404, description = "There is no such invocation", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It has ended already", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn cancel(id: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let id = checked(&id)?;
    if input.caller.only_ci {
        fetch(&input, id).await?;
    }
    let before = input.api.engine.cancel(input.namespace(), id).await?;
    if before.is_terminal() {
        let detail = format!("invocation `{id}` is already {before}: there is nothing to cancel");
        return Err(ApiError::new(Code::Conflict, detail));
    }
    Ok(reply::json(StatusCode::OK, &InvocationBody { invocation: fetch(&input, id).await? }))
}
