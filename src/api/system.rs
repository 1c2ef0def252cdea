//! Health, capacity and metrics.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde_json::json;
use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::Api;
use super::errors::ApiError;
use super::input::{Input, answer, input};
use crate::http::reply;

const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
/// A health check is answered within this time.
const PING: Duration = Duration::from_secs(2);

pub(super) fn health_filter(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    warp::path("healthz").and(warp::get()).and(input(api)).then(|input| answer(health(input))).boxed()
}

pub(super) fn capacity_filter(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    warp::path("capacity").and(warp::get()).and(input(api)).then(|input| answer(capacity(input))).boxed()
}

/// Says whether the server can take work, and nothing else: everybody may ask.
async fn health(input: Input) -> Result<Response, ApiError> {
    let well = !input.api.stopping.is_cancelled() && input.api.store.ping(PING).await.is_ok();
    let (status, word) = if well { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "unavailable") };
    Ok(reply::json(status, &json!({ "status": word })))
}

pub(super) fn metrics_filter(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    warp::path("metrics").and(warp::get()).and(input(api)).then(|input| answer(metrics(input))).boxed()
}

/// The figures of the whole server, as Prometheus reads them.
async fn metrics(input: Input) -> Result<Response, ApiError> {
    let page = input.api.stats.page(&*input.api.engine, &input.api.store).await;
    Ok(reply::bytes(PROMETHEUS, page))
}

async fn capacity(input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    Ok(reply::envelope("capacity", &input.api.engine.capacity()))
}
