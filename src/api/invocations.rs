//! Invocations: look at one, wait for it, fetch what went in and came out, cancel it.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderValue;
use runlet_core::cause::CauseKind;
use runlet_core::id::InvocationId;
use runlet_core::problem::Code;
use runlet_core::store::execution::Invocation;
use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::Api;
use super::errors::ApiError;
use super::input::{Input, answer, input};
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
    let routes = show.or(result).unify().or(payload).unify().or(explain).unify().or(cancel).unify();
    warp::path("invocations").and(routes).boxed()
}

fn checked(id: &str) -> Result<InvocationId, ApiError> {
    id.parse().map_err(|error: runlet_core::id::BadId| ApiError::invalid(error.to_string()))
}

async fn fetch(input: &Input, id: InvocationId) -> Result<Invocation, ApiError> {
    let invocation = input.api.store.invocation(input.namespace(), id).await?;
    let seen = invocation.filter(|invocation| !input.caller.only_ci || invocation.cause.kind == CauseKind::Ci);
    seen.ok_or_else(|| ApiError::not_found("invocation", id))
}

async fn show(id: String, input: Input) -> Result<Response, ApiError> {
    let patience = input.query(&["wait"])?.wait(WAIT)?;
    let id = checked(&id)?;
    if !patience.is_zero() {
        let waiting = input.api.engine.wait(input.namespace(), id, patience);
        // A server that stops ends the wait early: the state as it is then is an answer too.
        input.until_stopping(patience, waiting).await.transpose()?;
    }
    Ok(reply::envelope("invocation", &fetch(&input, id).await?))
}

async fn result(id: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let id = checked(&id)?;
    let result = input.api.store.result(input.namespace(), id).await?;
    let (bytes, kind) = result.ok_or_else(|| ApiError::not_found("result of invocation", id))?;
    Ok(reply::bytes(HeaderValue::from_str(&kind).unwrap_or(OCTETS), bytes))
}

async fn payload(id: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let id = checked(&id)?;
    let payload = input.api.store.payload(input.namespace(), id).await?;
    let bytes = payload.ok_or_else(|| ApiError::not_found("payload of invocation", id))?;
    // A stranger chose the content type of what he sent: it is not handed on, so that no browser acts on it.
    Ok(reply::bytes(OCTETS, bytes))
}

async fn explain(id: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let explanation = input.api.engine.explain(input.namespace(), checked(&id)?).await?;
    Ok(reply::envelope("explanation", &explanation))
}

async fn cancel(id: String, input: Input) -> Result<Response, ApiError> {
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
    Ok(reply::envelope("invocation", &fetch(&input, id).await?))
}
