//! `POST /hooks/...`: hands a webhook to the receiver and says what became of it.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName};
use runlet_core::engine::Accepted;
use runlet_core::id::DeliveryId;
use runlet_core::name::{HookPath, Namespace};
use runlet_core::problem::{Code, Problem};
use runlet_triggers::webhook::{Answer, Headers, Incoming, Refused};
use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::Api;
use super::calls::AcceptedInvocation;
use super::errors::ApiError;
use super::input::{Input, answer, input};
use super::shapes::Anything;
use crate::http::{Peer, reply};

/// Largest body: what GitHub sends at most.
const BODY: usize = 25 << 20;
/// Names the delivery of a refused request that is on record.
const DELIVERY: HeaderName = HeaderName::from_static("runlet-delivery");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// A delivery that starts nothing.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HookIgnored {
    delivery: DeliveryId,
    /// Why nothing runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    ignored: Option<String>,
    /// It is a ping.
    #[serde(skip_serializing_if = "Option::is_none")]
    ping: Option<bool>,
}

/// A delivery that is on record with what it starts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HookAccepted {
    delivery: DeliveryId,
    invocations: Vec<AcceptedInvocation>,
}

pub(super) fn filter(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    warp::path("hooks")
        .and(warp::post())
        .and(warp::path::tail().map(|tail: warp::path::Tail| tail.as_str().to_owned()))
        .and(input(api))
        .then(|tail, input| answer(receive(tail, input)))
        .boxed()
}

/// Receive a webhook
///
/// What counts as signed is up to the adapter of the hook.
#[utoipa::path(
    post,
    path = "/hooks/{path}",
    tag = "hooks",
    params(
        ("path" = String, Path, description = "`{path}` is a hook of namespace `default`; `{namespace}/{path}` one of another namespace, or with slashes in its path")
    ),
    request_body(content = Anything, content_type = "application/json", description = "The event as the sender signed it, 25 MiB at most"),
    responses(
        (status = 200, description = "Verified, and nothing runs: a ping, or no trigger wants it", body = HookIgnored),
        (status = 202, description = "On record, and the invocations are queued", body = HookAccepted),
        (status = 401, description = "The signature is missing or wrong", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such hook", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Its functions were changed in this moment", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It is signed, and not what the adapter can read", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn receive(tail: String, mut input: Input) -> Result<Response, ApiError> {
    // Whatever is decided about it goes on record: without room for that it is not looked at.
    input.api.disk.check()?;
    let body = input.body(BODY).await?;
    let (namespace, path) = place(&tail).ok_or_else(|| {
        ApiError::new(Code::NotFound, "there is no such hook; its URL is /hooks/{namespace}/{path} or /hooks/{path}")
    })?;
    let incoming = Incoming { headers: headers(&input.headers), body: body.bytes.clone(), source: source(&input) };
    match input.api.receiver.receive(namespace, path, incoming).await {
        Ok(Answer::Accepted { delivery, invocations }) => Ok(accepted(delivery, &invocations)),
        Ok(Answer::Ignored { delivery, reason }) => {
            let body = HookIgnored { delivery, ignored: Some(reason), ping: None };
            Ok(reply::json(StatusCode::OK, &body))
        }
        Ok(Answer::Pong { delivery }) => {
            Ok(reply::json(StatusCode::OK, &HookIgnored { delivery, ignored: None, ping: Some(true) }))
        }
        Err(Refused { code, text, delivery }) => {
            let mut response = ApiError::new(code, text).response();
            if let Some(delivery) = delivery {
                reply::set(&mut response, DELIVERY, &delivery.to_string());
            }
            Ok(response)
        }
    }
}

fn accepted(delivery: DeliveryId, invocations: &[Accepted]) -> Response {
    let invocations = invocations.iter().cloned().map(AcceptedInvocation::from).collect();
    reply::json(StatusCode::ACCEPTED, &HookAccepted { delivery, invocations })
}

/// `a` is path `a` in `default`; `a/b` and longer is path `b...` in namespace `a`.
fn place(tail: &str) -> Option<(Namespace, HookPath)> {
    match tail.split_once('/') {
        None => Some((Namespace::default_namespace(), HookPath::new(tail).ok()?)),
        Some((namespace, path)) => Some((Namespace::new(namespace).ok()?, HookPath::new(path).ok()?)),
    }
}

fn headers(headers: &HeaderMap) -> Headers {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
}

/// Address of the sender; behind a proxy, the one that the proxy saw.
fn source(input: &Input) -> String {
    match input.peer {
        Peer::Unix { .. } => "unix".to_owned(),
        Peer::Tcp(address) => {
            let forwarded = input.headers.get_all(FORWARDED_FOR).iter().next_back().filter(|_| input.api.behind_proxy);
            // Only the last entry is the proxy's own; those before it are whatever the sender wrote.
            let last = forwarded.and_then(|value| value.to_str().ok()?.rsplit(',').next()?.trim().parse().ok());
            last.unwrap_or(address.ip()).to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_several_segments_is_the_namespace() {
        let read = |tail: &str| place(tail).map(|(namespace, path)| format!("{namespace} {path}"));
        assert_eq!(read("gh").as_deref(), Some("default gh"));
        assert_eq!(read("team/gh").as_deref(), Some("team gh"));
        assert_eq!(read("team/gh/main").as_deref(), Some("team gh/main"));
        for tail in ["", "/", "gh/", "a//b", "A/b", "a/../b", "a/%2e"] {
            assert_eq!(read(tail), None, "{tail}");
        }
    }
}
