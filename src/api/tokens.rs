//! Tokens: list, make, revoke. A secret is in exactly one answer: the one that makes it.

use std::sync::Arc;

use hyper::StatusCode;
use runlet_core::clock;
use runlet_core::id::TokenId;
use runlet_core::problem::{Code, Problem};
use runlet_core::store::token::Token;
use runlet_core::token::{Role, TokenSecret};
use runlet_core::unit::Span;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::Api;
use super::errors::ApiError;
use super::input::{Input, answer, input};
use crate::http::reply;

/// Largest request.
const REQUEST: usize = 16 << 10;
/// Longest name.
const NAME: usize = 64;

pub(super) fn filter(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let list = warp::get().and(input(api)).then(|input| answer(list(input)));
    let create = warp::post().and(input(api)).then(|input| answer(create(input)));
    let revoke =
        warp::delete().and(warp::path::param::<String>()).and(input(api)).then(|id, input| answer(revoke(id, input)));
    warp::path("tokens").and(list.or(create).unify().or(revoke).unify()).boxed()
}

/// List tokens, newest first, without their secrets
#[utoipa::path(
    get,
    path = "/v1/tokens",
    tag = "server",
    params(
        ("before" = Option<TokenId>, Query, description = "`next` of the page before"),
        ("limit" = Option<u32>, Query, description = "At most so many; 100 unless given", minimum = 1, maximum = 1000)
    ),
    responses(
        (status = 200, description = "A page", body = TokenPage)
    )
)]
pub(super) async fn list(input: Input) -> Result<Response, ApiError> {
    let query = input.query(&["before", "limit"])?;
    let (before, page) = (query.read::<TokenId>("before")?, query.page()?);
    let mut tokens = input.api.store.tokens(input.namespace(), before, page.rows()).await?;
    let next = page.cut(&mut tokens, |last| last.id);
    Ok(reply::json(StatusCode::OK, &TokenPage { tokens, next }))
}

/// A token that is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenWish {
    /// What to call it: 1 to 64 printable characters.
    #[schema(min_length = 1, max_length = 64)]
    name: String,
    /// What it may do.
    role: Role,
    /// How long it is good: `12h`, `30d`; without it, until it is revoked.
    #[schema(value_type = Option<String>, example = "30d")]
    expires_in: Option<Span>,
}

/// A page of tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TokenPage {
    tokens: Vec<Token>,
    /// What goes into `before` for the next page; missing on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A token that was made, with its secret.
#[derive(Serialize, ToSchema)]
pub(super) struct NewToken<'a> {
    token: Token,
    /// Shown this once.
    secret: &'a str,
}

/// Make a token
#[utoipa::path(
    post,
    path = "/v1/tokens",
    tag = "server",
    request_body(content = TokenWish),
    responses(
        (status = 201, description = "The token, and its secret this once", body = NewToken)
    )
)]
pub(super) async fn create(mut input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let body = input.body(REQUEST).await?;
    let wanted = wanted(&body.bytes)?;
    let namespace = input.namespace();
    if input.caller.local_admin {
        input.api.store.ensure_namespace(namespace).await?;
    }
    let expires_at = match wanted.expires_in {
        None => None,
        Some(span) => {
            let end = chrono::TimeDelta::from_std(span.0).ok().and_then(|span| clock::now().checked_add_signed(span));
            Some(end.ok_or_else(|| ApiError::invalid("expires_in: that is too far away; write for example \"30d\""))?)
        }
    };
    let secret = TokenSecret::generate().map_err(|error| ApiError::internal(&error))?;
    let token = input.api.store.create_token(namespace, &wanted.name, wanted.role, &secret, expires_at).await?;
    tracing::info!(token.id = %token.id, token.role = %token.role, namespace = %namespace, "token made");
    Ok(reply::json(StatusCode::CREATED, &NewToken { token, secret: secret.expose() }))
}

fn wanted(body: &[u8]) -> Result<TokenWish, ApiError> {
    let wanted: TokenWish = serde_json::from_slice(body).map_err(|error| {
        let code = if error.is_data() { Code::Invalid } else { Code::BadJson };
        ApiError::new(code, format!("{error}; write {{\"name\": \"...\", \"role\": \"...\", \"expires_in\": \"30d\"}}"))
    })?;
    let printable = wanted.name.chars().all(|c| !c.is_control());
    if wanted.name.trim().is_empty() || wanted.name.chars().count() > NAME || !printable {
        return Err(ApiError::invalid(format!("name: write 1 to {NAME} printable characters")));
    }
    if wanted.expires_in.is_some_and(|span| span.0.is_zero()) {
        return Err(ApiError::invalid("expires_in: write more than nothing, for example \"30d\", or leave it out"));
    }
    Ok(wanted)
}

/// Revoke a token
#[utoipa::path(
    delete,
    path = "/v1/tokens/{id}",
    tag = "server",
    params(
        ("id" = TokenId, Path, description = "Id of the token")
    ),
    responses(
        (status = 204, description = "It is refused from now on"),
        (status = 404, description = "There is no such token that is still good", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn revoke(id: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let id: TokenId = id.parse().map_err(|error: runlet_core::id::BadId| ApiError::invalid(error.to_string()))?;
    let revoked = input.api.store.revoke_token(input.namespace(), id).await?;
    input.api.tokens.clear();
    if !revoked {
        return Err(ApiError::not_found("token that is still good", id));
    }
    tracing::info!(token.id = %id, namespace = %input.namespace(), "token revoked");
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_checked() {
        let code = |body: &str| wanted(body.as_bytes()).err().map(|error| error.code());
        assert_eq!(code(r#"{"name":"ci","role":"invoker","expires_in":"30d"}"#), None);
        assert_eq!(code(r#"{"name":"ci","role":"invoker"}"#), None);
        assert_eq!(code("{"), Some(Code::BadJson));
        for body in [
            r#"{"name":"ci"}"#,
            r#"{"name":"ci","role":"king"}"#,
            r#"{"name":"","role":"viewer"}"#,
            r#"{"name":"a\nb","role":"viewer"}"#,
            r#"{"name":"a","role":"viewer","expires_in":"soon"}"#,
            r#"{"name":"a","role":"viewer","expires_in":"0s"}"#,
            r#"{"name":"a","role":"viewer","colour":"red"}"#,
        ] {
            assert_eq!(code(body), Some(Code::Invalid), "{body}");
        }
    }
}
