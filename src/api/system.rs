//! Health and capacity.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use serde_json::json;
use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::Api;
use super::errors::ApiError;
use super::input::{Input, answer, input};
use crate::http::reply;

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

async fn capacity(input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    Ok(reply::envelope("capacity", &input.api.engine.capacity()))
}
