//! Triggers: what there is, when they fire next, what became of their ticks; pausing and resuming schedules.

use std::sync::Arc;

use hyper::StatusCode;
use runlet_core::clock;
use runlet_core::id::{BadId, TriggerId};
use runlet_core::manifest::TriggerSpec;
use runlet_core::name::FunctionName;
use runlet_core::problem::{Code, Problem};
use runlet_core::store::cron::{TickRecord, TriggerRecord};
use runlet_triggers::cron;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::Api;
use super::errors::ApiError;
use super::input::{Input, answer, input};
use crate::http::reply;

/// Largest body of a request.
const REQUEST: usize = 16 << 10;

/// Longest note.
const NOTE: usize = 500;

pub(super) fn filter(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let one = || warp::path::param::<String>();
    let list = warp::get().and(input(api)).then(|input| answer(list(input)));
    let show = warp::get().and(one()).and(input(api)).then(|id, input| answer(show(id, input)));
    let ticks =
        warp::get().and(one()).and(warp::path("ticks")).and(input(api)).then(|id, input| answer(ticks(id, input)));
    let pause =
        warp::post().and(one()).and(warp::path("pause")).and(input(api)).then(|id, input| answer(pause(id, input)));
    let resume =
        warp::post().and(one()).and(warp::path("resume")).and(input(api)).then(|id, input| answer(resume(id, input)));
    let routes = list.or(show).unify().or(ticks).unify().or(pause).unify().or(resume).unify();
    warp::path("triggers").and(routes).boxed()
}

fn checked(id: &str) -> Result<TriggerId, ApiError> {
    id.parse().map_err(|error: BadId| ApiError::invalid(error.to_string()))
}

/// A page of triggers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TriggerPage {
    triggers: Vec<TriggerRecord>,
    /// What goes into `after` for the next page; missing on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A trigger.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TriggerBody {
    trigger: TriggerRecord,
}

/// Ticks, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TickList {
    ticks: Vec<TickRecord>,
}

/// List triggers
#[utoipa::path(
    get,
    path = "/v1/triggers",
    tag = "triggers",
    params(
        ("function" = Option<FunctionName>, Query, description = "Only of this function"),
        ("after" = Option<TriggerId>, Query, description = "`next` of the page before"),
        ("limit" = Option<u32>, Query, description = "At most so many; 100 unless given", minimum = 1, maximum = 1000)
    ),
    responses(
        (status = 200, description = "A page", body = TriggerPage)
    )
)]
pub(super) async fn list(input: Input) -> Result<Response, ApiError> {
    let query = input.query(&["function", "after", "limit"])?;
    let (function, after) = (query.read::<FunctionName>("function")?, query.read::<TriggerId>("after")?);
    let page = query.page()?;
    let store = &input.api.store;
    let mut triggers = store.triggers(input.namespace(), function.as_ref(), None, after, page.rows()).await?;
    let next = page.cut(&mut triggers, |last| last.id);
    triggers.iter_mut().for_each(with_next);
    Ok(reply::json(StatusCode::OK, &TriggerPage { triggers, next }))
}

/// Show a trigger
#[utoipa::path(
    get,
    path = "/v1/triggers/{id}",
    tag = "triggers",
    params(
        ("id" = TriggerId, Path, description = "Id of the trigger")
    ),
    responses(
        (status = 200, description = "The trigger, with its next tick", body = TriggerBody),
        (status = 404, description = "There is no such trigger", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show(id: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    found(&input, checked(&id)?).await
}

/// List the last ticks of a schedule
///
/// The last hundred or so are kept.
#[utoipa::path(
    get,
    path = "/v1/triggers/{id}/ticks",
    tag = "triggers",
    params(
        ("id" = TriggerId, Path, description = "Id of the trigger"),
        ("limit" = Option<u32>, Query, description = "At most so many; 20 unless given", minimum = 1, maximum = 1000)
    ),
    responses(
        (status = 200, description = "Its ticks and what became of them", body = TickList),
        (status = 404, description = "There is no such trigger", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn ticks(id: String, input: Input) -> Result<Response, ApiError> {
    let limit = input.query(&["limit"])?.limit(20, 1000)?;
    let id = checked(&id)?;
    one(&input, id).await?;
    let rows = i64::try_from(limit).unwrap_or(i64::MAX);
    let ticks = input.api.store.ticks(input.namespace(), id, rows).await?;
    Ok(reply::json(StatusCode::OK, &TickList { ticks }))
}

/// What a pause may say.
#[derive(Debug, Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PauseWish {
    /// For whoever finds it paused; at most 500 characters.
    #[schema(max_length = 500)]
    note: Option<String>,
}

/// Pause a schedule
///
/// Its ticks are passed over until it is resumed.
#[utoipa::path(
    post,
    path = "/v1/triggers/{id}/pause",
    tag = "triggers",
    params(
        ("id" = TriggerId, Path, description = "Id of the trigger")
    ),
    request_body(content = Option<PauseWish>, description = "Why; may be left out"),
    responses(
        (status = 200, description = "The trigger as it is now", body = TriggerBody),
        (status = 404, description = "There is no such trigger", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn pause(id: String, mut input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let id = schedule(&input, &id).await?;
    let body = input.body(REQUEST).await?;
    let wanted = if body.bytes.is_empty() { PauseWish::default() } else { wanted(&body.bytes)? };
    let note = wanted.note.as_deref().map(str::trim).filter(|note| !note.is_empty());
    if note.is_some_and(|note| note.chars().count() > NOTE) {
        return Err(ApiError::invalid(format!("note: write at most {NOTE} characters")));
    }
    if !input.api.store.pause_schedule(input.namespace(), id, note, clock::now()).await? {
        return Err(ApiError::not_found("trigger", id));
    }
    tracing::info!(trigger.id = %id, namespace = %input.namespace(), "schedule paused");
    found(&input, id).await
}

fn wanted(body: &[u8]) -> Result<PauseWish, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        let code = if error.is_data() { Code::Invalid } else { Code::BadJson };
        ApiError::new(code, format!("{error}; write {{\"note\": \"...\"}}, or no body at all"))
    })
}

/// Let a paused schedule go on
///
/// From now on: ticks of the pause are not made good for.
#[utoipa::path(
    post,
    path = "/v1/triggers/{id}/resume",
    tag = "triggers",
    params(
        ("id" = TriggerId, Path, description = "Id of the trigger")
    ),
    responses(
        (status = 200, description = "The trigger as it is now", body = TriggerBody),
        (status = 404, description = "There is no such trigger", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn resume(id: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let id = schedule(&input, &id).await?;
    if !input.api.store.resume_schedule(input.namespace(), id, clock::now()).await? {
        return Err(ApiError::not_found("trigger", id));
    }
    tracing::info!(trigger.id = %id, namespace = %input.namespace(), "schedule resumed");
    found(&input, id).await
}

/// A trigger that has a schedule.
async fn schedule(input: &Input, id: &str) -> Result<TriggerId, ApiError> {
    let trigger = one(input, checked(id)?).await?;
    match trigger.spec {
        TriggerSpec::Cron(_) => Ok(trigger.id),
        TriggerSpec::Webhook(_) => Err(ApiError::invalid(format!(
            "trigger `{}` is a webhook: only cron triggers can be paused and resumed",
            trigger.id
        ))),
        TriggerSpec::Queue(spec) => Err(ApiError::invalid(format!(
            "trigger `{}` takes from a queue: pause the queue, `runlet queue pause {}`",
            trigger.id,
            spec.ledger_queue(&trigger.function)
        ))),
    }
}

async fn one(input: &Input, id: TriggerId) -> Result<TriggerRecord, ApiError> {
    let mut found = input.api.store.triggers(input.namespace(), None, Some(id), None, 1).await?;
    found.pop().ok_or_else(|| ApiError::not_found("trigger", id))
}

async fn found(input: &Input, id: TriggerId) -> Result<Response, ApiError> {
    let mut trigger = one(input, id).await?;
    with_next(&mut trigger);
    Ok(reply::json(StatusCode::OK, &TriggerBody { trigger }))
}

/// Computes the next tick of a schedule that is not paused.
fn with_next(trigger: &mut TriggerRecord) {
    let (TriggerSpec::Cron(spec), Some(cursor), None) = (&trigger.spec, trigger.cursor, &trigger.paused) else {
        return;
    };
    trigger.next_at = cron::rhythm(spec).ok().and_then(|rhythm| rhythm.after(cursor));
}
