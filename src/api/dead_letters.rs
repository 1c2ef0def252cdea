//! Dead letters: list them, have them run again, drop them.

use std::sync::Arc;

use hyper::StatusCode;
use runlet_core::engine::DedupKey;
use runlet_core::id::InvocationId;
use runlet_core::name::FunctionName;
use runlet_core::outcome::OutcomeKind;
use runlet_core::problem::{Code, Problem};
use runlet_core::store::dead_letter::{DeadLetter, DeadLetterFilter};
use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::Api;
use super::errors::ApiError;
use super::input::{Input, answer, input};
use super::invocations;
use super::query::Query;
use super::rerun::{Again, Wanted, again};
use crate::http::reply;

pub(super) fn filter(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let one = || warp::path::param::<String>();
    let redrive = || warp::path("redrive");
    let list = warp::get().and(input(api)).then(|input| answer(list(input)));
    let many = warp::post().and(redrive()).and(input(api)).then(|input| answer(redrive_many(input)));
    let this = warp::post().and(one()).and(redrive()).and(input(api)).then(|id, input| answer(redrive_one(id, input)));
    let drop = warp::delete().and(one()).and(input(api)).then(|id, input| answer(drop(id, input)));
    warp::path("dead_letters").and(list.or(many).unify().or(this).unify().or(drop).unify()).boxed()
}

/// A page of dead letters.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeadLetterPage {
    dead_letters: Vec<DeadLetter>,
    /// What goes into `before` for the next page; missing on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A dead letter that could not run again.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RefusedRedrive {
    invocation: InvocationId,
    /// Why.
    reason: String,
}

/// What became of dead letters that were to run again.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Redriven {
    /// Those that do.
    redriven: Vec<Again>,
    /// Those that cannot, and stay.
    refused: Vec<RefusedRedrive>,
    /// What goes into `before` to go on; missing when none is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// One that does run again.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RedrivenBody {
    invocation: Again,
}

fn wanted(query: &Query, rows: i64) -> Result<DeadLetterFilter, ApiError> {
    Ok(DeadLetterFilter {
        function: query.read("function")?,
        outcome: query.word("outcome", &OutcomeKind::ALL, OutcomeKind::as_str)?,
        since: query.since("since")?,
        until: query.since("until")?,
        before: query.read("before")?,
        limit: rows,
    })
}

/// List dead letters, those that were accepted last first
///
/// Accepted asynchronous work that failed for good or expired is here until somebody has it run again or drops it.
#[utoipa::path(
    get,
    path = "/v1/dead_letters",
    tag = "calls",
    params(
        ("function" = Option<FunctionName>, Query, description = "Only of this function"),
        ("outcome" = Option<OutcomeKind>, Query, description = "Only those that ended like this"),
        ("since" = Option<String>, Query, description = "Only those that failed since a moment, or so long ago", example = "1h"),
        ("until" = Option<String>, Query, description = "Only those that failed before a moment, or so long ago", example = "5m"),
        ("before" = Option<InvocationId>, Query, description = "`next` of the page before"),
        ("limit" = Option<u32>, Query, description = "At most so many; 100 unless given", minimum = 1, maximum = 1000)
    ),
    responses(
        (status = 200, description = "A page", body = DeadLetterPage)
    )
)]
pub(super) async fn list(input: Input) -> Result<Response, ApiError> {
    let query = input.query(&["function", "outcome", "since", "until", "before", "limit"])?;
    let page = query.page()?;
    let filter = wanted(&query, page.rows())?;
    let mut dead_letters = input.api.store.dead_letters(input.namespace(), &filter).await?;
    let next = page.cut(&mut dead_letters, |last| last.invocation);
    Ok(reply::json(StatusCode::OK, &DeadLetterPage { dead_letters, next }))
}

/// Have a dead letter run again
///
/// A new invocation with the same event is queued, and the dead letter is off the list. Asked twice, it runs once.
#[utoipa::path(
    post,
    path = "/v1/dead_letters/{id}/redrive",
    tag = "calls",
    params(
        ("id" = InvocationId, Path, description = "The invocation that failed"),
        ("revision" = Option<String>, Query, description = "`current`, `same` (the one that it ran) or `sha256:...`; `current` unless given")
    ),
    responses(
        (status = 202, description = "It is queued", body = RedrivenBody),
        (status = 404, description = "There is no such dead letter, function or revision", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn redrive_one(id: String, input: Input) -> Result<Response, ApiError> {
    let revision = input.query(&["revision"])?.read::<Wanted>("revision")?.unwrap_or_default();
    let invocation = redrive(&input, invocations::checked(&id)?, &revision).await?;
    Ok(reply::json(StatusCode::ACCEPTED, &RedrivenBody { invocation }))
}

/// Have many dead letters run again
///
/// Those that the filter takes, a page at a time: go on with `next` while there is one.
#[utoipa::path(
    post,
    path = "/v1/dead_letters/redrive",
    tag = "calls",
    params(
        ("function" = Option<FunctionName>, Query, description = "Only of this function"),
        ("outcome" = Option<OutcomeKind>, Query, description = "Only those that ended like this"),
        ("since" = Option<String>, Query, description = "Only those that failed since a moment, or so long ago", example = "1h"),
        ("until" = Option<String>, Query, description = "Only those that failed before a moment, or so long ago", example = "5m"),
        ("before" = Option<InvocationId>, Query, description = "`next` of the answer before"),
        ("limit" = Option<u32>, Query, description = "At most so many; 100 unless given", minimum = 1, maximum = 1000),
        ("revision" = Option<String>, Query, description = "`current`, `same` (the one that each ran) or `sha256:...`; `current` unless given")
    ),
    responses(
        (status = 200, description = "What became of each", body = Redriven)
    )
)]
pub(super) async fn redrive_many(input: Input) -> Result<Response, ApiError> {
    let query = input.query(&["function", "outcome", "since", "until", "before", "limit", "revision"])?;
    let revision = query.read::<Wanted>("revision")?.unwrap_or_default();
    let page = query.page()?;
    let mut letters = input.api.store.dead_letters(input.namespace(), &wanted(&query, page.rows())?).await?;
    let next = page.cut(&mut letters, |last| last.invocation);
    let (mut redriven, mut refused) = (Vec::new(), Vec::new());
    for DeadLetter { invocation, .. } in letters {
        match redrive(&input, invocation, &revision).await {
            Ok(again) => redriven.push(again),
            // What concerns one is told with it; what would stop all the others, too, ends the request.
            Err(error) if matches!(error.code(), Code::NotFound | Code::Invalid) => {
                refused.push(RefusedRedrive { invocation, reason: error.detail() });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(reply::json(StatusCode::OK, &Redriven { redriven, refused, next }))
}

/// Queues a dead letter anew and takes it off the list, in this order: whoever repeats what was cut in between finds the new one by its key.
async fn redrive(input: &Input, id: InvocationId, revision: &Wanted) -> Result<Again, ApiError> {
    let original = invocations::fetch(input, id).await?;
    if !original.dead_letter {
        return Err(ApiError::not_found("dead letter", id));
    }
    let dedup = DedupKey { scope: "redrive".to_owned(), key: id.to_string() };
    let accepted = again(input, &original, revision, Some(dedup)).await?;
    input.api.store.drop_dead_letter(input.namespace(), id).await?;
    Ok(Again::new(accepted, id))
}

/// Drop a dead letter
///
/// It is off the list; the invocation stays in the history.
#[utoipa::path(
    delete,
    path = "/v1/dead_letters/{id}",
    tag = "calls",
    params(
        ("id" = InvocationId, Path, description = "The invocation that failed")
    ),
    responses(
        (status = 204, description = "It is off the list"),
        (status = 404, description = "There is no such dead letter", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn drop(id: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let id = invocations::checked(&id)?;
    if !input.api.store.drop_dead_letter(input.namespace(), id).await? {
        return Err(ApiError::not_found("dead letter", id));
    }
    Ok(reply::empty(StatusCode::NO_CONTENT))
}
