//! Callbacks: who was told how invocations ended, and what came of it; trying again and cancelling.

use std::sync::Arc;

use hyper::StatusCode;
use runlet_core::id::InvocationId;
use runlet_core::name::FunctionName;
use runlet_core::problem::{Code, Problem};
use runlet_core::store::outbox::{Callback, CallbackFilter, CallbackState};
use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::Api;
use super::errors::ApiError;
use super::input::{Input, answer, input};
use super::invocations::checked;
use crate::http::reply;

pub(super) fn filter(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let one = || warp::path::param::<String>();
    let list = warp::get().and(input(api)).then(|input| answer(list(input)));
    let show = warp::get().and(one()).and(input(api)).then(|id, input| answer(show(id, input)));
    let retry =
        warp::post().and(one()).and(warp::path("retry")).and(input(api)).then(|id, input| answer(retry(id, input)));
    let cancel =
        warp::post().and(one()).and(warp::path("cancel")).and(input(api)).then(|id, input| answer(cancel(id, input)));
    warp::path("callbacks").and(list.or(show).unify().or(retry).unify().or(cancel).unify()).boxed()
}

/// A page of callbacks.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CallbackPage {
    callbacks: Vec<Callback>,
    /// What goes into `before` for the next page; missing on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A callback.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CallbackBody {
    callback: Callback,
}

/// List callbacks, those of the newest invocations first
#[utoipa::path(
    get,
    path = "/v1/callbacks",
    tag = "callbacks",
    params(
        ("function" = Option<FunctionName>, Query, description = "Only about this function"),
        ("state" = Option<CallbackState>, Query, description = "Only in this state"),
        ("before" = Option<InvocationId>, Query, description = "`next` of the page before"),
        ("limit" = Option<u32>, Query, description = "At most so many; 100 unless given", minimum = 1, maximum = 1000)
    ),
    responses(
        (status = 200, description = "A page", body = CallbackPage)
    )
)]
pub(super) async fn list(input: Input) -> Result<Response, ApiError> {
    let query = input.query(&["function", "state", "before", "limit"])?;
    let page = query.page()?;
    let filter = CallbackFilter {
        function: query.read("function")?,
        state: query.word("state", &CallbackState::ALL, CallbackState::as_str)?,
        invocation: None,
        before: query.read("before")?,
        limit: page.rows(),
    };
    let mut callbacks = input.api.store.callbacks(input.namespace(), &filter).await?;
    let next = page.cut(&mut callbacks, |last| last.invocation);
    Ok(reply::json(StatusCode::OK, &CallbackPage { callbacks, next }))
}

async fn fetch(input: &Input, id: InvocationId) -> Result<Callback, ApiError> {
    let callback = input.api.store.callback(input.namespace(), id).await?;
    callback.ok_or_else(|| ApiError::not_found("callback of invocation", id))
}

/// Show the callback of an invocation
#[utoipa::path(
    get,
    path = "/v1/callbacks/{id}",
    tag = "callbacks",
    params(
        ("id" = InvocationId, Path, description = "Id of the invocation that ended")
    ),
    responses(
        (status = 200, description = "The callback with its last tries", body = CallbackBody),
        (status = 404, description = "There is no such callback", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show(id: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let callback = fetch(&input, checked(&id)?).await?;
    Ok(reply::json(StatusCode::OK, &CallbackBody { callback }))
}

/// Try a callback now
///
/// One that waits is tried earlier than it would be, one that is over begins anew.
#[utoipa::path(
    post,
    path = "/v1/callbacks/{id}/retry",
    tag = "callbacks",
    params(
        ("id" = InvocationId, Path, description = "Id of the invocation that ended")
    ),
    responses(
        (status = 200, description = "The callback as it is now", body = CallbackBody),
        (status = 404, description = "There is no such callback", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn retry(id: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let id = checked(&id)?;
    if !input.api.store.retry_callback(input.namespace(), id).await? {
        return Err(ApiError::not_found("callback of invocation", id));
    }
    Ok(reply::json(StatusCode::OK, &CallbackBody { callback: fetch(&input, id).await? }))
}

/// Cancel a callback that waits
///
/// A try that is under way may still be told.
#[utoipa::path(
    post,
    path = "/v1/callbacks/{id}/cancel",
    tag = "callbacks",
    params(
        ("id" = InvocationId, Path, description = "Id of the invocation that ended")
    ),
    responses(
        (status = 200, description = "The callback as it is now", body = CallbackBody),
        (status = 404, description = "There is no such callback", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It does not wait any more", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn cancel(id: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let id = checked(&id)?;
    let cancelled = input.api.store.cancel_callback(input.namespace(), id).await?;
    let callback = fetch(&input, id).await?;
    if !cancelled {
        let state = callback.state.as_str();
        let detail = format!("the callback of invocation `{id}` is already {state}: there is nothing to cancel");
        return Err(ApiError::new(Code::Conflict, detail));
    }
    Ok(reply::json(StatusCode::OK, &CallbackBody { callback }))
}
