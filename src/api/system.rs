//! Health, capacity and metrics.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderValue;
use runlet_core::engine::Capacity;
use serde::Serialize;
use utoipa::ToSchema;
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

/// Whether the server can take work.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok` or `unavailable`.
    status: &'static str,
}

/// What the host has.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CapacityBody {
    capacity: Capacity,
}

pub(super) fn health_filter(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    warp::path("healthz").and(warp::get()).and(input(api)).then(|input| answer(health(input))).boxed()
}

pub(super) fn capacity_filter(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    warp::path("capacity").and(warp::get()).and(input(api)).then(|input| answer(capacity(input))).boxed()
}

/// Say whether the server can take work
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "server",
    responses(
        (status = 200, description = "It can", body = Health),
        (status = 503, description = "It cannot: it stops, or its database does not answer", body = Health)
    )
)]
pub(super) async fn health(input: Input) -> Result<Response, ApiError> {
    let well = !input.api.stopping.is_cancelled() && input.api.store.ping(PING).await.is_ok();
    let (status, word) = if well { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "unavailable") };
    Ok(reply::json(status, &Health { status: word }))
}

pub(super) fn metrics_filter(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    warp::path("metrics").and(warp::get()).and(input(api)).then(|input| answer(metrics(input))).boxed()
}

/// Read the figures of the whole server, as Prometheus reads them
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "server",
    responses(
        (status = 200, description = "The figures", body = String, content_type = "text/plain")
    )
)]
pub(super) async fn metrics(input: Input) -> Result<Response, ApiError> {
    let page = input.api.stats.page(&*input.api.engine, &input.api.store).await;
    Ok(reply::bytes(PROMETHEUS, page))
}

/// Say what the host has for sandboxes, and what of it is in use
#[utoipa::path(
    get,
    path = "/v1/capacity",
    tag = "server",
    responses(
        (status = 200, description = "The capacity", body = CapacityBody)
    )
)]
pub(super) async fn capacity(input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    Ok(reply::json(StatusCode::OK, &CapacityBody { capacity: input.api.engine.capacity() }))
}
