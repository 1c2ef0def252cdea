//! How large the history is.

use std::sync::Arc;

use hyper::StatusCode;
use runlet_core::store::size::HistorySize;
use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::Api;
use super::errors::ApiError;
use super::input::{Input, answer, input};
use crate::http::reply;

/// What is asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HistoryBody {
    history: HistoryRoom,
}

/// The size of the history, and the room it has.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HistoryRoom {
    #[serde(flatten)]
    size: HistorySize,
    /// Free bytes of the data directory's file system; `null`: the kernel does not tell.
    disk_free: Option<u64>,
    /// Below so many free bytes nothing new is accepted.
    disk_floor: Option<u64>,
}

pub(super) fn filter(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let size = warp::path("size").and(warp::get()).and(input(api)).then(|input| answer(size(input)));
    warp::path("history").and(size).boxed()
}

/// Say how large the history is, and when which part of it goes
#[utoipa::path(
    get,
    path = "/v1/history/size",
    tag = "server",
    responses(
        (status = 200, description = "The size", body = HistoryBody)
    )
)]
pub(super) async fn size(input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let size = input.api.store.history_size(input.namespace(), &input.api.retention).await?;
    let space = input.api.disk.space();
    let history = HistoryRoom {
        size,
        disk_free: space.map(|space| space.free),
        disk_floor: space.map(|space| input.api.disk.floor(space.total)),
    };
    Ok(reply::json(StatusCode::OK, &HistoryBody { history }))
}
