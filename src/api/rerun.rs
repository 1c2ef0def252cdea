//! Running an invocation again: a new one with the same event, that names the one it repeats.

use std::str::FromStr;

use runlet_core::cause::{Cause, CauseKind};
use runlet_core::engine::{Accepted, DedupKey, NewInvocation, Submission};
use runlet_core::id::InvocationId;
use runlet_core::lineage::Lineage;
use runlet_core::name::{BadName, FunctionName, RevisionDigest};
use runlet_core::problem::{Code, Problem};
use runlet_core::store::execution::Invocation;
use serde::Serialize;
use utoipa::ToSchema;
use warp::reply::Response;

use super::errors::ApiError;
use super::input::Input;
use super::invocations;
use crate::http::reply;

/// Which revision runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Wanted {
    /// The function's current one.
    #[default]
    Current,
    /// The one that the invocation was accepted for.
    Same,
    /// This one.
    Revision(RevisionDigest),
}

impl FromStr for Wanted {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        match text {
            "current" => Ok(Self::Current),
            "same" => Ok(Self::Same),
            _ => RevisionDigest::new(text).map(Self::Revision),
        }
    }
}

/// An invocation that runs again.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Again {
    /// The new invocation.
    id: InvocationId,
    /// Its function.
    function: FunctionName,
    /// The one that it repeats.
    of: InvocationId,
}

/// What a rerun is answered with.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AgainBody {
    invocation: Again,
}

impl Again {
    pub(super) fn new(accepted: Accepted, of: InvocationId) -> Self {
        Self { id: accepted.invocation, function: accepted.function, of }
    }
}

/// Run an invocation again
///
/// A new invocation with the same event is queued; its cause is `rerun` and names this one.
#[utoipa::path(
    post,
    path = "/v1/invocations/{id}/rerun",
    tag = "calls",
    params(
        ("id" = InvocationId, Path, description = "Id of the invocation"),
        ("revision" = Option<String>, Query, description = "`current`, `same` (the one that it ran) or `sha256:...`; `current` unless given")
    ),
    responses(
        (status = 202, description = "It is queued", body = AgainBody),
        (status = 404, description = "There is no such invocation, function or revision", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It has not ended yet", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn rerun(id: String, input: Input) -> Result<Response, ApiError> {
    let wanted = input.query(&["revision"])?.read::<Wanted>("revision")?.unwrap_or_default();
    let id = invocations::checked(&id)?;
    let original = invocations::fetch(&input, id).await?;
    if !original.state.is_terminal() {
        let detail = format!("invocation `{id}` is {}: wait for its end, or cancel it first", original.state);
        return Err(ApiError::new(Code::Conflict, detail));
    }
    let accepted = again(&input, &original, &wanted, None).await?;
    let body = AgainBody { invocation: Again::new(accepted, id) };
    let mut response = reply::json(hyper::StatusCode::ACCEPTED, &body);
    reply::set(&mut response, hyper::header::LOCATION, &format!("/v1/invocations/{}", body.invocation.id));
    Ok(response)
}

/// Queues an invocation that repeats `original`.
pub(super) async fn again(
    input: &Input,
    original: &Invocation,
    wanted: &Wanted,
    dedup: Option<DedupKey>,
) -> Result<Accepted, ApiError> {
    let id = original.id;
    let (Some(function), Some(revision)) = (&original.function, &original.revision) else {
        return Err(ApiError::invalid(format!(
            "invocation `{id}` is a job, no call of a function: it cannot run again"
        )));
    };
    let payload = input.api.store.payload(input.namespace(), id).await?;
    let payload = payload.ok_or_else(|| ApiError::not_found("invocation", id))?;
    let revision = match wanted {
        Wanted::Current => None,
        Wanted::Same => Some(revision.clone()),
        Wanted::Revision(digest) => Some(digest.clone()),
    };
    let lineage = Lineage::repeat(original.cause.lineage.as_deref(), id);
    let cause =
        Cause { kind: CauseKind::Rerun, of: Some(id), lineage: Some(Box::new(lineage)), ..original.cause.clone() };
    let invocation = NewInvocation {
        namespace: input.namespace().clone(),
        function: function.clone(),
        revision,
        cause,
        payload,
        content_type: original.content_type.clone(),
        dedup,
        priority: 0,
        not_before: None,
        deadline: None,
    };
    let submission = Submission { delivery: None, invocations: vec![invocation] };
    let submitted = input.api.engine.submit(submission).await?;
    let accepted = submitted.invocations.into_iter().next();
    accepted.ok_or_else(|| ApiError::new(Code::Internal, "the engine accepted nothing; the server's log tells more"))
}
