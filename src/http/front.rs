//! What every request passes through, whatever it asks for: an id, a trace, a log line, a count, a net under
//! panics, safe headers.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures_util::FutureExt as _;
use hyper::header::{HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{HeaderMap, Method};
use runlet_core::metric;
use runlet_core::trace::Trace;
use tracing::Instrument as _;
use warp::reply::Response;

use super::reply;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Names a request, in its answer and in the log.
const REQUEST_ID: HeaderName = HeaderName::from_static("runlet-request");

/// Put into the extensions of a response: the route that answered, for the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RoutePattern(pub &'static str);

/// Makes request ids: unique over restarts by the time of the first one.
#[derive(Debug)]
pub(crate) struct RequestIds {
    epoch: String,
    next: AtomicU64,
}

impl RequestIds {
    /// Ids of this life of the server.
    pub(crate) fn new() -> Self {
        Self { epoch: format!("{:x}", runlet_core::clock::now().timestamp()), next: AtomicU64::new(1) }
    }

    fn next(&self) -> String {
        format!("{}-{:x}", self.epoch, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// The trace that the sender says its request belongs to.
pub(crate) fn trace(headers: &HeaderMap) -> Option<Trace> {
    let values = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes);
    Trace::of_headers(values(TRACEPARENT), values(TRACESTATE))
}

/// Runs `answer` to its end, come what may, logs and counts it. The query and the headers never go into the log.
pub(crate) async fn pass(
    ids: &RequestIds,
    method: Method,
    trace: Option<Trace>,
    answer: impl Future<Output = Response>,
) -> Response {
    let begin = Instant::now();
    let id = ids.next();
    let trace = trace.as_ref().map(|trace| trace.parent.trace_id());
    let span = tracing::info_span!("request", request.id = %id, trace.id = trace);
    let mut response = AssertUnwindSafe(answer).catch_unwind().instrument(span).await.unwrap_or_else(|_| {
        tracing::error!(request.id = %id, "a handler panicked");
        reply::internal()
    });
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, value);
    }
    let route = response.extensions().get::<RoutePattern>().map_or("none", |route| route.0);
    let status = response.status().as_u16();
    let (took, method) = (begin.elapsed(), known(&method));
    metric::answered(route, method, status, took);
    let duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    tracing::info!(
        target: "runlet::access",
        { request.id = %id, trace.id = trace, http.method = method, http.route = route, http.status = status, duration_us },
        "answered"
    );
    response
}

/// A method as a word of few: whatever a client makes up is `other`.
fn known(method: &Method) -> &'static str {
    let words = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"];
    words.into_iter().find(|word| *word == method.as_str()).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_500_and_not_a_broken_connection() {
        let ids = RequestIds::new();
        let response = pass(&ids, Method::GET, None, async { panic!("on purpose") }).await;
        assert_eq!(response.status(), 500);
        assert!(response.headers().contains_key(REQUEST_ID));
        assert_eq!(response.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
    }
}
