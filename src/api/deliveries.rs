//! Deliveries: webhooks as they were received.

use std::sync::Arc;

use runlet_core::id::DeliveryId;
use runlet_core::name::HookPath;
use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::Api;
use super::errors::ApiError;
use super::input::{Input, answer, input};
use super::invocations::OCTETS;
use crate::http::reply;

pub(super) fn filter(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let one = warp::path::param::<String>;
    let list = warp::get().and(input(api)).then(|input| answer(list(input)));
    let show = warp::get().and(one()).and(input(api)).then(|id, input| answer(show(id, input)));
    let body = warp::get().and(one()).and(warp::path("body")).and(input(api)).then(|id, input| answer(body(id, input)));
    warp::path("deliveries").and(list.or(show).unify().or(body).unify()).boxed()
}

fn checked(id: &str) -> Result<DeliveryId, ApiError> {
    id.parse().map_err(|error: runlet_core::id::BadId| ApiError::invalid(error.to_string()))
}

async fn list(input: Input) -> Result<Response, ApiError> {
    let query = input.query(&["path", "before", "limit"])?;
    let (path, before) = (query.read::<HookPath>("path")?, query.read::<DeliveryId>("before")?);
    let limit = query.limit(100, 1000)?;
    let rows = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let mut deliveries = input.api.store.deliveries(input.namespace(), path.as_ref(), before, rows).await?;
    let more = deliveries.len() > limit;
    deliveries.truncate(limit);
    let next = deliveries.last().filter(|_| more).map(|last| last.id.to_string());
    Ok(reply::page("deliveries", &deliveries, next))
}

async fn show(id: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let id = checked(&id)?;
    let delivery = input.api.store.delivery(input.namespace(), id).await?;
    let delivery = delivery.ok_or_else(|| ApiError::not_found("delivery", id))?;
    Ok(reply::envelope("delivery", &delivery))
}

async fn body(id: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let id = checked(&id)?;
    let body = input.api.store.delivery_body(input.namespace(), id).await?;
    let bytes = body.ok_or_else(|| ApiError::not_found("body of delivery", id))?;
    Ok(reply::bytes(OCTETS, bytes))
}
