//! Aliases of a function: names that point at its revisions, weighted.

use std::sync::Arc;

use hyper::StatusCode;
use runlet_core::name::{AliasName, FunctionName};
use runlet_core::problem::{Code, Problem};
use runlet_core::store::alias::{Alias, MOST_POINTS, MOST_WEIGHT, Share};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::Api;
use super::errors::ApiError;
use super::functions::checked;
use super::input::{Input, answer, input};
use super::precondition::{precondition, with_etag};
use crate::http::reply;

/// Largest request.
const REQUEST: usize = 16 << 10;

pub(super) fn filter(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let all = || warp::path::param::<String>().and(warp::path("aliases"));
    let one = || all().and(warp::path::param::<String>());
    let list = warp::get().and(all()).and(input(api)).then(|name, input| answer(list(name, input)));
    let show = warp::get().and(one()).and(input(api)).then(|name, alias, input| answer(show(name, alias, input)));
    let set = warp::put().and(one()).and(input(api)).then(|name, alias, input| answer(set(name, alias, input)));
    let gone = warp::delete().and(one()).and(input(api)).then(|name, alias, input| answer(remove(name, alias, input)));
    list.or(show).unify().or(set).unify().or(gone).unify().boxed()
}

fn named(function: String, alias: String) -> Result<(FunctionName, AliasName), ApiError> {
    let alias = AliasName::new(alias).map_err(|error| ApiError::invalid(error.to_string()))?;
    Ok((checked(function)?, alias))
}

/// A page of aliases.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AliasPage {
    aliases: Vec<Alias>,
    /// What goes into `after` for the next page; missing on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// An alias.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AliasBody {
    alias: Alias,
}

/// List the aliases of a function, by name
#[utoipa::path(
    get,
    path = "/v1/functions/{name}/aliases",
    tag = "functions",
    params(
        ("name" = FunctionName, Path, description = "Name of the function"),
        ("after" = Option<AliasName>, Query, description = "`next` of the page before"),
        ("limit" = Option<u32>, Query, description = "At most so many; 100 unless given", minimum = 1, maximum = 1000)
    ),
    responses(
        (status = 200, description = "A page", body = AliasPage),
        (status = 404, description = "There is no such function", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list(name: String, input: Input) -> Result<Response, ApiError> {
    let query = input.query(&["after", "limit"])?;
    let (after, page) = (query.read::<AliasName>("after")?, query.page()?);
    let name = checked(name)?;
    let mut aliases = input.api.store.aliases(input.namespace(), &name, after.as_ref(), page.rows()).await?;
    if aliases.is_empty() && input.api.store.function(input.namespace(), &name).await?.is_none() {
        return Err(ApiError::not_found("function", &name));
    }
    let next = page.cut(&mut aliases, |last| last.name.clone());
    Ok(reply::json(StatusCode::OK, &AliasPage { aliases, next }))
}

/// Show an alias
#[utoipa::path(
    get,
    path = "/v1/functions/{name}/aliases/{alias}",
    tag = "functions",
    params(
        ("name" = FunctionName, Path, description = "Name of the function"),
        ("alias" = AliasName, Path, description = "Name of the alias")
    ),
    responses(
        (status = 200, description = "The alias; its `ETag` goes into `If-Match` of a change", body = AliasBody),
        (status = 404, description = "There is no such alias", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show(name: String, alias: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let (function, name) = named(name, alias)?;
    let alias = input.api.store.alias(input.namespace(), &function, &name).await?;
    Ok(told(StatusCode::OK, alias.ok_or_else(|| ApiError::not_found("alias", format!("{function}@{name}")))?))
}

fn told(status: StatusCode, alias: Alias) -> Response {
    let version = alias.version();
    with_etag(reply::json(status, &AliasBody { alias }), &version)
}

/// What an alias is to point at.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AliasWish {
    /// Revisions of the function, each once. With several, each gets invocations in proportion to its weight.
    #[schema(min_items = 1, max_items = 10)]
    revisions: Vec<Share>,
}

/// Point an alias at revisions
///
/// They replace what it pointed at. A call of `NAME@ALIAS` gets one of them, by weight and chance.
#[utoipa::path(
    put,
    path = "/v1/functions/{name}/aliases/{alias}",
    tag = "functions",
    params(
        ("name" = FunctionName, Path, description = "Name of the function"),
        ("alias" = AliasName, Path, description = "Name of the alias"),
        ("If-Match" = Option<String>, Header, description = "Only over this version: an `ETag`, or `*`"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if the alias is new")
    ),
    request_body(content = AliasWish),
    responses(
        (status = 200, description = "It was there, and points there now", body = AliasBody),
        (status = 201, description = "It is new", body = AliasBody),
        (status = 404, description = "There is no such function or revision", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The alias is in another version", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn set(name: String, alias: String, mut input: Input) -> Result<Response, ApiError> {
    let body = input.body(REQUEST).await?;
    input.query(&[])?;
    let (function, name) = named(name, alias)?;
    let precondition = precondition(&input.headers)?;
    let revisions = wish(&body.bytes)?;
    let alias = Alias { namespace: input.namespace().clone(), function, name, revisions };
    let new = input.api.store.set_alias(&alias, &precondition).await?;
    tracing::info!(
        namespace = %alias.namespace,
        function.name = %alias.function,
        alias = %alias.name,
        revisions = alias.revisions.len(),
        "alias set"
    );
    Ok(told(if new { StatusCode::CREATED } else { StatusCode::OK }, alias))
}

/// The revisions that are wished for, in the order in which they are kept.
fn wish(body: &[u8]) -> Result<Vec<Share>, ApiError> {
    let wish: AliasWish = serde_json::from_slice(body).map_err(|error| {
        let code = if error.is_data() { Code::Invalid } else { Code::BadJson };
        let example = "{\"revisions\": [{\"revision\": \"sha256:...\", \"weight\": 1}]}";
        ApiError::new(code, format!("{error}; write {example}"))
    })?;
    let mut shares = wish.revisions;
    if shares.is_empty() || shares.len() > MOST_POINTS {
        return Err(ApiError::invalid(format!("revisions: write 1 to {MOST_POINTS} of them")));
    }
    if let Some(wrong) = shares.iter().find(|share| !(1..=MOST_WEIGHT).contains(&share.weight)) {
        return Err(ApiError::invalid(format!(
            "revisions: weight {} is not possible; write a whole number from 1 to {MOST_WEIGHT}",
            wrong.weight
        )));
    }
    shares.sort_by(|one, other| one.revision.cmp(&other.revision));
    if let Some(twice) = shares.windows(2).find(|two| two[0].revision == two[1].revision) {
        return Err(ApiError::invalid(format!("revisions: `{}` is there twice", twice[0].revision)));
    }
    Ok(shares)
}

/// Remove an alias
///
/// The revisions it pointed at stay.
#[utoipa::path(
    delete,
    path = "/v1/functions/{name}/aliases/{alias}",
    tag = "functions",
    params(
        ("name" = FunctionName, Path, description = "Name of the function"),
        ("alias" = AliasName, Path, description = "Name of the alias"),
        ("If-Match" = Option<String>, Header, description = "Remove it only in this version: an `ETag`, or `*`")
    ),
    responses(
        (status = 204, description = "It is removed"),
        (status = 404, description = "There is no such alias", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It is in another version", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn remove(name: String, alias: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let (function, name) = named(name, alias)?;
    let precondition = precondition(&input.headers)?;
    if !input.api.store.remove_alias(input.namespace(), &function, &name, &precondition).await? {
        return Err(ApiError::not_found("alias", format!("{function}@{name}")));
    }
    tracing::info!(namespace = %input.namespace(), function.name = %function, alias = %name, "alias removed");
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_checked_and_put_in_order() {
        let share = |n: &str, weight: &str| format!("{{\"revision\":\"sha256:{}\"{weight}}}", n.repeat(64));
        let read = |shares: &[String]| wish(format!("{{\"revisions\":[{}]}}", shares.join(",")).as_bytes());
        let two = read(&[share("b", ",\"weight\":5"), share("a", "")]).expect("good");
        assert_eq!((two[0].weight, two[1].weight), (1, 5));
        for bad in [
            &[][..],
            &[share("a", ""), share("a", "")],
            &[share("a", ",\"weight\":0")],
            &[share("a", ",\"weight\":10001")],
            &[share("a", ",\"weight\":-1")],
            &[share("a", ",\"wait\":1")],
        ] {
            assert_eq!(read(bad).err().map(|error| error.code()), Some(Code::Invalid), "{bad:?}");
        }
        assert_eq!(wish(b"{").err().map(|error| error.code()), Some(Code::BadJson));
    }
}
