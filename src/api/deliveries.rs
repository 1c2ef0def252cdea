//! Deliveries: webhooks as they were received.

use std::sync::Arc;

use hyper::StatusCode;
use runlet_core::id::DeliveryId;
use runlet_core::name::HookPath;
use runlet_core::problem::Problem;
use runlet_core::store::delivery::Delivery;
use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::Api;
use super::errors::ApiError;
use super::input::{Input, answer, input};
use super::invocations::OCTETS;
use super::shapes::Octets;
use crate::http::reply;

pub(super) fn filter(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let one = warp::path::param::<String>;
    let list = warp::get().and(input(api)).then(|input| answer(list(input)));
    let show = warp::get().and(one()).and(input(api)).then(|id, input| answer(show(id, input)));
    let body = warp::get().and(one()).and(warp::path("body")).and(input(api)).then(|id, input| answer(body(id, input)));
    warp::path("deliveries").and(list.or(show).unify().or(body).unify()).boxed()
}

/// A page of deliveries.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeliveryPage {
    deliveries: Vec<Delivery>,
    /// What goes into `before` for the next page; missing on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A delivery.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeliveryBody {
    delivery: Delivery,
}

fn checked(id: &str) -> Result<DeliveryId, ApiError> {
    id.parse().map_err(|error: runlet_core::id::BadId| ApiError::invalid(error.to_string()))
}

/// List webhook deliveries, newest first
#[utoipa::path(
    get,
    path = "/v1/deliveries",
    tag = "history",
    params(
        ("path" = Option<HookPath>, Query, description = "Only of this hook"),
        ("before" = Option<DeliveryId>, Query, description = "`next` of the page before"),
        ("limit" = Option<u32>, Query, description = "At most so many; 100 unless given", minimum = 1, maximum = 1000)
    ),
    responses(
        (status = 200, description = "A page", body = DeliveryPage)
    )
)]
pub(super) async fn list(input: Input) -> Result<Response, ApiError> {
    let query = input.query(&["path", "before", "limit"])?;
    let (path, before) = (query.read::<HookPath>("path")?, query.read::<DeliveryId>("before")?);
    let page = query.page()?;
    let mut deliveries = input.api.store.deliveries(input.namespace(), path.as_ref(), before, page.rows()).await?;
    let next = page.cut(&mut deliveries, |last| last.id);
    Ok(reply::json(StatusCode::OK, &DeliveryPage { deliveries, next }))
}

/// Show a delivery, with the verdict on it
#[utoipa::path(
    get,
    path = "/v1/deliveries/{id}",
    tag = "history",
    params(
        ("id" = DeliveryId, Path, description = "Id of the delivery")
    ),
    responses(
        (status = 200, description = "The delivery", body = DeliveryBody),
        (status = 404, description = "There is no such delivery", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show(id: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let id = checked(&id)?;
    let delivery = input.api.store.delivery(input.namespace(), id).await?;
    let delivery = delivery.ok_or_else(|| ApiError::not_found("delivery", id))?;
    Ok(reply::json(StatusCode::OK, &DeliveryBody { delivery }))
}

/// Fetch the body of a delivery
#[utoipa::path(
    get,
    path = "/v1/deliveries/{id}/body",
    tag = "history",
    params(
        ("id" = DeliveryId, Path, description = "Id of the delivery")
    ),
    responses(
        (status = 200, description = "The bytes as received; of a refused delivery perhaps fewer", content_type = "application/octet-stream", body = Octets),
        (status = 404, description = "There is no such delivery", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn body(id: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let id = checked(&id)?;
    let body = input.api.store.delivery_body(input.namespace(), id).await?;
    let bytes = body.ok_or_else(|| ApiError::not_found("body of delivery", id))?;
    Ok(reply::bytes(OCTETS, bytes))
}
