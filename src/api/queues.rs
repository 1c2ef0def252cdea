//! Queues: what there is and how full, making and removing them, pausing, purging, and sending dead letters on their way again.

use std::sync::Arc;

use hyper::StatusCode;
use runlet_core::clock;
use runlet_core::id::MessageId;
use runlet_core::name::QueueName;
use runlet_core::problem::{Code, Problem};
use runlet_core::store::message::{QueueRecord, Redrive, Which};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::errors::ApiError;
use super::input::{Input, answer, input};
use super::{Api, messages};
use crate::http::reply;

/// Largest body of a request that is no message.
const REQUEST: usize = 64 << 10;
/// Longest note.
const NOTE: usize = 500;
/// Most dead letters that are named in a request.
const NAMED: usize = 1000;

pub(super) fn filter(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let one = || warp::path::param::<String>();
    let list = warp::get().and(input(api)).then(|input| answer(list(input)));
    let show = warp::get().and(one()).and(input(api)).then(|name, input| answer(show(name, input)));
    let make = warp::put().and(one()).and(input(api)).then(|name, input| answer(make(name, input)));
    let remove = warp::delete().and(one()).and(input(api)).then(|name, input| answer(remove(name, input)));
    let verb = |name: &'static str| warp::post().and(one()).and(warp::path(name)).and(input(api));
    let pause = verb("pause").then(|name, input| answer(pause(name, input)));
    let resume = verb("resume").then(|name, input| answer(resume(name, input)));
    let purge = verb("purge").then(|name, input| answer(purge(name, input)));
    let redrive = verb("redrive").then(|name, input| answer(redrive(name, input)));
    let publish = verb("messages").then(|name, input| answer(messages::publish(name, input)));
    let look = warp::get().and(one()).and(warp::path("messages")).and(input(api));
    let look = look.then(|name, input| answer(messages::list(name, input)));
    let queues = list.or(show).unify().or(make).unify().or(remove).unify();
    let verbs = pause.or(resume).unify().or(purge).unify().or(redrive).unify().or(publish).unify().or(look).unify();
    warp::path("queues").and(queues.or(verbs).unify()).boxed()
}

/// A page of queues.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QueuePage {
    queues: Vec<QueueRecord>,
    /// What goes into `after` for the next page; missing on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A queue.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QueueBody {
    queue: QueueRecord,
}

/// How many messages something was done to.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CountBody {
    /// Messages.
    messages: u64,
}

/// List queues
#[utoipa::path(
    get,
    path = "/v1/queues",
    tag = "queues",
    params(
        ("after" = Option<String>, Query, description = "`next` of the page before"),
        ("limit" = Option<u32>, Query, description = "At most so many; 100 unless given", minimum = 1, maximum = 1000)
    ),
    responses(
        (status = 200, description = "A page, by name", body = QueuePage)
    )
)]
pub(super) async fn list(input: Input) -> Result<Response, ApiError> {
    let query = input.query(&["after", "limit"])?;
    let page = query.page()?;
    let found = input.api.store.queues(Some(input.namespace()), None, query.text("after"), page.rows()).await?;
    let mut queues: Vec<QueueRecord> = found.into_iter().map(|(_, queue)| queue).collect();
    let next = page.cut(&mut queues, |last| last.name.clone());
    Ok(reply::json(StatusCode::OK, &QueuePage { queues, next }))
}

/// Show a queue
#[utoipa::path(
    get,
    path = "/v1/queues/{name}",
    tag = "queues",
    params(("name" = String, Path, description = "Name of the queue")),
    responses(
        (status = 200, description = "The queue", body = QueueBody),
        (status = 404, description = "There is no such queue", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show(name: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    found(&input, &name, StatusCode::OK).await
}

async fn found(input: &Input, name: &str, status: StatusCode) -> Result<Response, ApiError> {
    let queue = input.api.store.queues(Some(input.namespace()), Some(name), None, 1).await?.pop();
    let (_, queue) = queue.ok_or_else(|| missing(name))?;
    Ok(reply::json(status, &QueueBody { queue }))
}

/// The error of a queue that is not there.
pub(super) fn missing(name: &str) -> ApiError {
    ApiError::not_found("queue", name.chars().take(80).collect::<String>())
}

/// Make a queue
///
/// A deploy makes those that its triggers name.
#[utoipa::path(
    put,
    path = "/v1/queues/{name}",
    tag = "queues",
    params(("name" = String, Path, description = "Name of the queue: 1 to 63 characters of a-z, 0-9 and -")),
    responses(
        (status = 200, description = "It was there", body = QueueBody),
        (status = 201, description = "It is new", body = QueueBody)
    )
)]
pub(super) async fn make(name: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let name = QueueName::new(name).map_err(|error| ApiError::invalid(error.to_string()))?;
    if input.caller.local_admin {
        input.api.store.ensure_namespace(input.namespace()).await?;
    }
    let new = input.api.store.make_queue(input.namespace(), &name, clock::now()).await?;
    found(&input, name.as_str(), if new { StatusCode::CREATED } else { StatusCode::OK }).await
}

/// Remove a queue
///
/// It must be empty, and no trigger may take from it.
#[utoipa::path(
    delete,
    path = "/v1/queues/{name}",
    tag = "queues",
    params(("name" = String, Path, description = "Name of the queue")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "There is no such queue", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is in use", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn remove(name: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    if !input.api.store.remove_queue(input.namespace(), &name).await? {
        return Err(missing(&name));
    }
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// What a pause may say.
#[derive(Debug, Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QueuePause {
    /// For whoever finds it paused; at most 500 characters.
    #[schema(max_length = 500)]
    note: Option<String>,
}

/// Pause a queue
///
/// Nothing is taken from it until it is resumed; messages can be published, and what is in flight goes on.
#[utoipa::path(
    post,
    path = "/v1/queues/{name}/pause",
    tag = "queues",
    params(("name" = String, Path, description = "Name of the queue")),
    request_body(content = Option<QueuePause>, description = "Why; may be left out"),
    responses(
        (status = 200, description = "The queue as it is now", body = QueueBody),
        (status = 404, description = "There is no such queue", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn pause(name: String, mut input: Input) -> Result<Response, ApiError> {
    let wish: QueuePause = wish(&mut input, "{\"note\": \"...\"}").await?;
    let note = wish.note.as_deref().map(str::trim).filter(|note| !note.is_empty());
    if note.is_some_and(|note| note.chars().count() > NOTE) {
        return Err(ApiError::invalid(format!("note: write at most {NOTE} characters")));
    }
    set_paused(&input, &name, Some((clock::now(), note))).await
}

/// Let a paused queue go on
#[utoipa::path(
    post,
    path = "/v1/queues/{name}/resume",
    tag = "queues",
    params(("name" = String, Path, description = "Name of the queue")),
    responses(
        (status = 200, description = "The queue as it is now", body = QueueBody),
        (status = 404, description = "There is no such queue", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn resume(name: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    set_paused(&input, &name, None).await
}

async fn set_paused(
    input: &Input,
    name: &str,
    paused: Option<(clock::Timestamp, Option<&str>)>,
) -> Result<Response, ApiError> {
    if !input.api.store.pause_queue(input.namespace(), name, paused).await? {
        return Err(missing(name));
    }
    tracing::info!(queue.name = name, namespace = %input.namespace(), paused = paused.is_some(), "queue paused or resumed");
    found(input, name, StatusCode::OK).await
}

/// Which messages to purge.
#[derive(Debug, Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PurgeWish {
    /// The dead letters, and not those that wait.
    #[serde(default)]
    dead: bool,
}

/// Remove messages for good
///
/// Those that wait, or the dead letters; those in flight stay.
#[utoipa::path(
    post,
    path = "/v1/queues/{name}/purge",
    tag = "queues",
    params(("name" = String, Path, description = "Name of the queue")),
    request_body(content = Option<PurgeWish>, description = "Which; without it those that wait"),
    responses(
        (status = 200, description = "How many are gone", body = CountBody),
        (status = 404, description = "There is no such queue", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn purge(name: String, mut input: Input) -> Result<Response, ApiError> {
    let wish: PurgeWish = wish(&mut input, "{\"dead\": true}").await?;
    let which = if wish.dead { Which::Dead } else { Which::Waiting };
    let purged = input.api.store.purge_queue(input.namespace(), &name, which).await?;
    let messages = purged.ok_or_else(|| missing(&name))?;
    tracing::info!(queue.name = name, namespace = %input.namespace(), messages, "queue purged");
    Ok(reply::json(StatusCode::OK, &CountBody { messages }))
}

/// Which dead letters go again.
#[derive(Debug, Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RedriveWish {
    /// These; at most 1000.
    #[schema(max_items = 1000)]
    messages: Option<Vec<MessageId>>,
    /// The oldest ones, at most so many; all without both.
    #[schema(minimum = 1)]
    limit: Option<u32>,
}

/// Let dead letters go again
///
/// From their first attempt on.
#[utoipa::path(
    post,
    path = "/v1/queues/{name}/redrive",
    tag = "queues",
    params(("name" = String, Path, description = "Name of the queue")),
    request_body(content = Option<RedriveWish>, description = "Which; without it all"),
    responses(
        (status = 200, description = "How many go", body = CountBody),
        (status = 404, description = "There is no such queue", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn redrive(name: String, mut input: Input) -> Result<Response, ApiError> {
    let wish: RedriveWish = wish(&mut input, "{\"messages\": [\"msg_...\"]} or {\"limit\": 10}").await?;
    let which = match (wish.messages, wish.limit) {
        (Some(_), Some(_)) => return Err(ApiError::invalid("name messages or a limit, not both")),
        (Some(ids), None) if ids.len() > NAMED => {
            return Err(ApiError::invalid(format!("messages: name at most {NAMED}")));
        }
        (Some(ids), None) => Redrive::These(ids),
        (None, Some(0)) => return Err(ApiError::invalid("limit: write a number from 1 on")),
        (None, limit) => Redrive::Oldest(limit.unwrap_or(u32::MAX)),
    };
    let redriven = input.api.store.redrive(input.namespace(), &name, &which).await?;
    let messages = redriven.ok_or_else(|| missing(&name))?;
    Ok(reply::json(StatusCode::OK, &CountBody { messages }))
}

/// What a body asks for; nothing where there is none.
async fn wish<T: DeserializeOwned + Default>(input: &mut Input, shape: &str) -> Result<T, ApiError> {
    let body = input.body(REQUEST).await?;
    input.query(&[])?;
    if body.bytes.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&body.bytes).map_err(|error| {
        let code = if error.is_data() { Code::Invalid } else { Code::BadJson };
        ApiError::new(code, format!("{error}; write {shape}, or no body at all"))
    })
}
