//! `POST /hooks/...`: hands a webhook to the receiver and says what became of it.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName};
use runlet_core::engine::Accepted;
use runlet_core::id::DeliveryId;
use runlet_core::name::{HookPath, Namespace};
use runlet_core::problem::Code;
use runlet_triggers::webhook::{Answer, Headers, Incoming, Refused};
use serde_json::json;
use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::Api;
use super::errors::ApiError;
use super::input::{Input, answer, input};
use crate::http::{Peer, reply};

/// Largest body: what GitHub sends at most.
const BODY: usize = 25 << 20;
/// Names the delivery of a refused request that is on record.
const DELIVERY: HeaderName = HeaderName::from_static("runlet-delivery");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

pub(super) fn filter(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    warp::path("hooks")
        .and(warp::post())
        .and(warp::path::tail().map(|tail: warp::path::Tail| tail.as_str().to_owned()))
        .and(input(api))
        .then(|tail, input| answer(receive(tail, input)))
        .boxed()
}

async fn receive(tail: String, mut input: Input) -> Result<Response, ApiError> {
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
            Ok(reply::json(StatusCode::OK, &json!({ "delivery": delivery, "ignored": reason })))
        }
        Ok(Answer::Pong { delivery }) => {
            Ok(reply::json(StatusCode::OK, &json!({ "delivery": delivery, "ping": true })))
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
    let list: Vec<_> = invocations
        .iter()
        .map(|one| json!({ "id": one.invocation, "function": one.function, "repeated": one.repeated }))
        .collect();
    reply::json(StatusCode::ACCEPTED, &json!({ "delivery": delivery, "invocations": list }))
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
