//! Revisions of a function: list them, and go back to one.

use std::sync::Arc;

use hyper::StatusCode;
use runlet_core::name::{FunctionName, RevisionDigest};
use runlet_core::problem::{Code, Problem};
use runlet_core::store::function::revision::Revision;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::Api;
use super::deploy::secrets_exist;
use super::errors::ApiError;
use super::functions::{FunctionBody, checked, told};
use super::input::{Input, answer, input};
use super::precondition::precondition;
use crate::http::reply;

/// Largest request.
const REQUEST: usize = 16 << 10;

pub(super) fn filter(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let one = || warp::path::param::<String>();
    let list = warp::get()
        .and(one())
        .and(warp::path("revisions"))
        .and(input(api))
        .then(|name, input| answer(list(name, input)));
    let back = warp::post()
        .and(one())
        .and(warp::path("rollback"))
        .and(input(api))
        .then(|name, input| answer(roll_back(name, input)));
    list.or(back).unify().boxed()
}

/// A page of revisions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RevisionPage {
    revisions: Vec<Revision>,
    /// What goes into `before` for the next page; missing on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// List the revisions of a function, newest first
#[utoipa::path(
    get,
    path = "/v1/functions/{name}/revisions",
    tag = "functions",
    params(
        ("name" = FunctionName, Path, description = "Name of the function"),
        ("before" = Option<RevisionDigest>, Query, description = "`next` of the page before"),
        ("limit" = Option<u32>, Query, description = "At most so many; 100 unless given", minimum = 1, maximum = 1000)
    ),
    responses(
        (status = 200, description = "A page", body = RevisionPage),
        (status = 404, description = "There is no such function", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list(name: String, input: Input) -> Result<Response, ApiError> {
    let query = input.query(&["before", "limit"])?;
    let (before, page) = (query.read::<RevisionDigest>("before")?, query.page()?);
    let name = checked(name)?;
    let mut revisions = input.api.store.revisions(input.namespace(), &name, before.as_ref(), page.rows()).await?;
    if revisions.is_empty() && input.api.store.function(input.namespace(), &name).await?.is_none() {
        return Err(ApiError::not_found("function", &name));
    }
    let next = page.cut(&mut revisions, |last| last.revision.clone());
    Ok(reply::json(StatusCode::OK, &RevisionPage { revisions, next }))
}

/// Where to go back to.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RollbackWish {
    /// The revision; without it, the one that was current before the current one.
    to: Option<RevisionDigest>,
}

/// Go back to an earlier revision
///
/// The function points at it at once, and its triggers are those of that revision. A second rollback without `to` goes one
/// further back.
#[utoipa::path(
    post,
    path = "/v1/functions/{name}/rollback",
    tag = "functions",
    params(
        ("name" = FunctionName, Path, description = "Name of the function"),
        ("If-Match" = Option<String>, Header, description = "Only from this version: an `ETag`, or `*`")
    ),
    request_body(content = Option<RollbackWish>, description = "Empty: the revision before the current one"),
    responses(
        (status = 200, description = "The function as it is now", body = FunctionBody),
        (status = 404, description = "There is no such function or revision", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "There is nothing to go back to, or it cannot be used any more", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The function is in another version", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn roll_back(name: String, mut input: Input) -> Result<Response, ApiError> {
    let body = input.body(REQUEST).await?;
    input.query(&[])?;
    let name = checked(name)?;
    let wish = wish(&body.bytes)?;
    let precondition = precondition(&input.headers)?;
    let allowed = |manifest: &_| secrets_exist(&input, manifest);
    let store = &input.api.store;
    let function = store.roll_back(input.namespace(), &name, wish.to.as_ref(), &precondition, &allowed).await?;
    tracing::info!(
        namespace = %function.namespace,
        function.name = %function.name,
        revision = %function.revision.short(),
        "function rolled back"
    );
    Ok(told(function))
}

fn wish(body: &[u8]) -> Result<RollbackWish, ApiError> {
    if body.is_empty() {
        return Ok(RollbackWish::default());
    }
    let wish: Option<RollbackWish> = serde_json::from_slice(body).map_err(|error| {
        let code = if error.is_data() { Code::Invalid } else { Code::BadJson };
        ApiError::new(code, format!("{error}; write {{\"to\": \"sha256:...\"}}, or send no body"))
    })?;
    Ok(wish.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_body_means_the_revision_before() {
        let to = |body: &str| wish(body.as_bytes()).map(|wish| wish.to.map(|to| to.short().to_owned())).ok();
        assert_eq!(to(""), Some(None));
        assert_eq!(to("{}"), Some(None));
        let digest = "ab".repeat(32);
        assert_eq!(to(&format!("{{\"to\":\"sha256:{digest}\"}}")), Some(Some("abababababab".to_owned())));
        for bad in ["{", "[]", "{\"to\":\"v1\"}", "{\"too\":1}"] {
            assert_eq!(to(bad), None, "{bad}");
        }
    }
}
