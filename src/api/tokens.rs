//! Tokens: list, make, revoke. A secret is in exactly one answer: the one that makes it.

use std::sync::Arc;

use hyper::StatusCode;
use runlet_core::clock;
use runlet_core::id::TokenId;
use runlet_core::problem::Code;
use runlet_core::store::token::Token;
use runlet_core::token::{Role, TokenSecret};
use runlet_core::unit::Span;
use serde::{Deserialize, Serialize};
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

async fn list(input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    Ok(reply::envelope("tokens", &input.api.store.tokens(input.namespace()).await?))
}

/// A token that is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: String,
    role: Role,
    expires_in: Option<Span>,
}

async fn create(mut input: Input) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Body<'a> {
        token: Token,
        secret: &'a str,
    }
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
    Ok(reply::json(StatusCode::CREATED, &Body { token, secret: secret.expose() }))
}

fn wanted(body: &[u8]) -> Result<Wanted, ApiError> {
    let wanted: Wanted = serde_json::from_slice(body).map_err(|error| {
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

async fn revoke(id: String, input: Input) -> Result<Response, ApiError> {
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
