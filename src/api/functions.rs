//! Functions: list, show, remove; and the way to everything below one.

use std::sync::Arc;

use hyper::StatusCode;
use runlet_core::name::FunctionName;
use runlet_core::problem::Problem;
use runlet_core::store::function::Function;
use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::errors::ApiError;
use super::input::{Input, answer, input};
use super::precondition::{precondition, with_etag};
use super::{Api, aliases, calls, deploy, revisions, settings};
use crate::http::reply;

pub(super) fn filter(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let one = || warp::path::param::<String>();
    let list = warp::get().and(input(api)).then(|input| answer(list(input)));
    let show = warp::get().and(one()).and(input(api)).then(|name, input| answer(show(name, input)));
    let deploy = warp::put().and(one()).and(input(api)).then(|name, input| answer(deploy::deploy(name, input)));
    let remove = warp::delete().and(one()).and(input(api)).then(|name, input| answer(remove(name, input)));
    let call = warp::post()
        .and(one())
        .and(warp::path("invocations"))
        .and(input(api))
        .then(|name, input| answer(calls::call(name, input)));
    let others = list.or(show).unify().or(deploy).unify().or(remove).unify();
    let others = others.or(revisions::filter(api)).unify().or(aliases::filter(api)).unify();
    let others = others.or(settings::filter(api)).unify().boxed();
    // The call comes first: it is the one that must be fast.
    warp::path("functions").and(call.or(others).unify()).boxed()
}

/// A name from a path.
pub(super) fn checked(name: String) -> Result<FunctionName, ApiError> {
    FunctionName::new(name).map_err(|error| ApiError::invalid(error.to_string()))
}

/// A page of functions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FunctionPage {
    functions: Vec<Function>,
    /// What goes into `after` for the next page; missing on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A function.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FunctionBody {
    pub(super) function: Function,
}

/// List functions, by name
#[utoipa::path(
    get,
    path = "/v1/functions",
    tag = "functions",
    params(
        ("after" = Option<FunctionName>, Query, description = "`next` of the page before"),
        ("limit" = Option<u32>, Query, description = "At most so many; 100 unless given", minimum = 1, maximum = 1000)
    ),
    responses((status = 200, description = "A page", body = FunctionPage))
)]
pub(super) async fn list(input: Input) -> Result<Response, ApiError> {
    let query = input.query(&["after", "limit"])?;
    let (after, page) = (query.read::<FunctionName>("after")?, query.page()?);
    let mut functions = input.api.store.functions(input.namespace(), after.as_ref(), page.rows()).await?;
    let next = page.cut(&mut functions, |last| last.name.clone());
    Ok(reply::json(StatusCode::OK, &FunctionPage { functions, next }))
}

/// Show a function
///
/// The `ETag` names its current revision: send it in `If-Match` with a change.
#[utoipa::path(
    get,
    path = "/v1/functions/{name}",
    tag = "functions",
    params(("name" = FunctionName, Path, description = "Name of the function")),
    responses(
        (status = 200, description = "The function at its current revision", body = FunctionBody),
        (status = 404, description = "There is no such function", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show(name: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let name = checked(name)?;
    let function = input.api.store.function(input.namespace(), &name).await?;
    Ok(told(function.ok_or_else(|| ApiError::not_found("function", &name))?))
}

/// A function as an answer, with its version.
pub(super) fn told(function: Function) -> Response {
    let version = function.revision.to_string();
    with_etag(reply::json(StatusCode::OK, &FunctionBody { function }), &version)
}

/// Remove a function
///
/// Its triggers and aliases go with it and what waits is cancelled; its history stays.
#[utoipa::path(
    delete,
    path = "/v1/functions/{name}",
    tag = "functions",
    params(
        ("name" = FunctionName, Path, description = "Name of the function"),
        ("If-Match" = Option<String>, Header, description = "Remove it only in this version: an `ETag`, or `*`")
    ),
    responses(
        (status = 204, description = "It is removed"),
        (status = 404, description = "There is no such function", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It is in another version", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn remove(name: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let name = checked(name)?;
    if !input.api.store.remove_function(input.namespace(), &name, &precondition(&input.headers)?).await? {
        return Err(ApiError::not_found("function", &name));
    }
    tracing::info!(namespace = %input.namespace(), function.name = %name, "function removed");
    Ok(reply::empty(StatusCode::NO_CONTENT))
}
