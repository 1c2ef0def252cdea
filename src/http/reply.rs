//! Replies: small makers for the bodies that the API sends.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use runlet_core::problem::{Code, Problem};
use serde::Serialize;
use warp::reply::Response;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// A body of the content type.
pub(crate) fn bytes(content_type: HeaderValue, body: Bytes) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// No body at all.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Bytes::new().into());
    *response.status_mut() = status;
    response
}

/// A JSON body.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(text) => {
            let mut response = bytes(JSON, text.into());
            *response.status_mut() = status;
            response
        }
        Err(error) => {
            tracing::error!(error = %error, "could not write a reply as JSON");
            internal()
        }
    }
}

/// A problem document.
pub(crate) fn problem(problem: &Problem) -> Response {
    let body = serde_json::to_vec(problem).unwrap_or_default();
    let mut response = bytes(PROBLEM, body.into());
    *response.status_mut() = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(seconds) = problem.code.retry_after() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The answer where runlet itself is at fault: what went wrong is in the log, not here.
pub(crate) fn internal() -> Response {
    problem(&Problem {
        code: Code::Internal,
        status: Code::Internal.status(),
        detail: "a fault of runlet itself; the server's log tells more".to_owned(),
        execution: None,
        invocation: None,
        outcome: None,
    })
}

/// Sets a header whose value is known to be plain text.
pub(crate) fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
