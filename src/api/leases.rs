//! Leases: take a sandbox, look at it, keep it for longer, run commands in it, give it back.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use runlet_core::cause::{Cause, CauseKind, CiJob};
use runlet_core::engine::{Lease, LeaseRequest, Network};
use runlet_core::name::FunctionName;
use runlet_core::problem::{Code, Problem};
use runlet_core::secret::Secret;
use runlet_core::unit::Span;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::errors::ApiError;
use super::input::{Input, answer, input};
use super::{Api, exec};
use crate::config::ci::{Wish, too_little};
use crate::http::reply;

/// Largest request: most of it are values to mask.
const BODY: usize = 1 << 20;

/// A lease that nobody bounds lasts so long.
const USUAL: Duration = Duration::from_secs(3600);

/// The longest lease.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The longest wait for room.
const WAIT: Duration = Duration::from_secs(24 * 3600);

pub(super) fn filter(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let one = warp::path::param::<String>;
    let list = warp::get().and(input(api)).then(|input| answer(list(input)));
    let take = warp::post().and(input(api)).then(|input| answer(take(input)));
    let show = warp::get().and(one()).and(input(api)).then(|id, input| answer(show(id, input)));
    let release = warp::delete().and(one()).and(input(api)).then(|id, input| answer(release(id, input)));
    let verb = |name: &'static str| warp::post().and(one()).and(warp::path(name)).and(input(api));
    let renew = verb("renew").then(|id, input| answer(renew(id, input)));
    let exec = verb("exec").then(|id, input| answer(exec::exec(id, input)));
    let one = show.or(release).unify().or(renew).unify().or(exec).unify();
    warp::path("leases").and(list.or(take).unify().or(one).unify()).boxed()
}

/// What is asked for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Take {
    /// A name of your own for it: 1 to 128 characters of A-Z, a-z, 0-9, -, _ and . A lease that has it is ended first.
    #[serde(default)]
    key: Option<String>,
    /// A function whose code, limits, environment and secrets the sandbox gets.
    #[serde(default)]
    function: Option<FunctionName>,
    /// The job it is for: the sandbox then has directories on disk.
    #[serde(default)]
    job: Option<CiJob>,
    /// What the operator's limits are to be instead, up to his bounds.
    #[serde(default)]
    limits: Wish,
    /// How long the lease lasts, or how long the job may take; at most 24 hours.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "1h")]
    timeout: Option<Span>,
    /// It ends when nothing has run in it for so long.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "2m")]
    idle: Option<Span>,
    /// How long to wait for room.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "1h")]
    wait: Option<Span>,
    /// Name of a directory that the jobs of the namespace share.
    #[serde(default)]
    cache: Option<String>,
    /// Values that are masked in the output on record.
    #[serde(default)]
    masks: Vec<String>,
}

/// What is answered.
#[derive(Serialize, ToSchema)]
pub(super) struct Taken {
    lease: Lease,
    /// Where it is not as was wished.
    notes: Vec<String>,
}

/// A lease.
#[derive(Serialize, ToSchema)]
pub(super) struct LeaseBody {
    lease: Lease,
}

/// The leases of a namespace on this server.
#[derive(Serialize, ToSchema)]
pub(super) struct LeasePage {
    leases: Vec<Lease>,
}

/// How much longer.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Renew {
    /// From now; at most 24 hours.
    #[schema(value_type = String, example = "1h")]
    timeout: Span,
}

/// A lease of the caller's, by its id or its key.
///
/// # Errors
/// `not_found`.
pub(super) fn find(input: &Input, reference: &str) -> Result<Lease, ApiError> {
    let mut leases = input.api.engine.leases(input.namespace()).into_iter();
    let found = leases.find(|lease| lease.key.as_deref() == Some(reference) || lease.id.to_string() == reference);
    let seen = found.filter(|lease| !input.caller.only_ci || lease.cause == CauseKind::Ci);
    seen.ok_or_else(|| ApiError::not_found("lease", reference.chars().take(140).collect::<String>()))
}

/// List the leases of this server, oldest first
#[utoipa::path(get, path = "/v1/leases", tag = "leases", responses((status = 200, description = "All of them", body = LeasePage)))]
pub(super) async fn list(input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let mut leases = input.api.engine.leases(input.namespace());
    leases.retain(|lease| !input.caller.only_ci || lease.cause == CauseKind::Ci);
    Ok(reply::json(StatusCode::OK, &LeasePage { leases }))
}

/// Show a lease
#[utoipa::path(
    get,
    path = "/v1/leases/{id}",
    tag = "leases",
    params(("id" = String, Path, description = "Id of the lease, or its key")),
    responses((status = 200, description = "The lease as it is now", body = LeaseBody), (status = 404, description = "There is no such lease", body = Problem, content_type = "application/problem+json"))
)]
pub(super) async fn show(reference: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let lease = find(&input, &reference)?;
    Ok(reply::json(StatusCode::OK, &LeaseBody { lease }))
}

/// Give a lease back
///
/// Everything in the sandbox is killed and gone when this is answered.
#[utoipa::path(
    delete,
    path = "/v1/leases/{id}",
    tag = "leases",
    params(("id" = String, Path, description = "Id of the lease, or its key")),
    responses((status = 204, description = "It is gone"), (status = 404, description = "There is no such lease", body = Problem, content_type = "application/problem+json"))
)]
pub(super) async fn release(reference: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let lease = find(&input, &reference)?;
    input.api.engine.release(input.namespace(), lease.id).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// Keep a lease for longer
#[utoipa::path(
    post,
    path = "/v1/leases/{id}/renew",
    tag = "leases",
    params(("id" = String, Path, description = "Id of the lease, or its key")),
    request_body(content = Renew),
    responses((status = 200, description = "The lease as it is now", body = LeaseBody), (status = 404, description = "There is no such lease", body = Problem, content_type = "application/problem+json"))
)]
pub(super) async fn renew(reference: String, mut input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let body = input.body(BODY).await?;
    let lease = find(&input, &reference)?;
    let Renew { timeout } = json(&body.bytes)?;
    let renewed = input.api.engine.renew(input.namespace(), lease.id, bounded(timeout)?).await?;
    Ok(reply::json(StatusCode::OK, &LeaseBody { lease: renewed }))
}

/// Lease a sandbox
///
/// Waits for room. It goes away when it is given back, when its time is over, or when nobody uses it any more.
#[utoipa::path(
    post,
    path = "/v1/leases",
    tag = "leases",
    request_body(content = Take),
    responses(
        (status = 201, description = "It is there", body = Taken),
        (status = 404, description = "There is no such function", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Its function's environment cannot be made", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn take(mut input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let body = input.body(BODY).await?;
    let take: Take = json(&body.bytes)?;
    drop(body);
    allowed(&input, &take)?;
    let (request, notes) = request(&input, take)?;
    let lease = input.api.engine.lease(request);
    let lease = tokio::select! {
        lease = lease => lease?,
        () = input.api.stopping.cancelled() => {
            return Err(ApiError::new(Code::SandboxLost, "the server is stopping"));
        }
    };
    Ok(reply::json(StatusCode::CREATED, &Taken { lease, notes }))
}

/// A CI system leases for its jobs, and gets nobody's code or secrets.
fn allowed(input: &Input, take: &Take) -> Result<(), ApiError> {
    if input.caller.only_ci && (take.job.is_none() || take.function.is_some()) {
        let detail = "a token with the role ci leases sandboxes for jobs: give a `job` and no `function`";
        return Err(ApiError::new(Code::Forbidden, detail));
    }
    if take.job.is_some() && take.function.is_some() {
        return Err(ApiError::invalid("a lease is for a `job` or has the code of a `function`: leave one of them out"));
    }
    if take.cache.is_some() && take.job.is_none() {
        return Err(ApiError::invalid("`cache` is for jobs: leave it out, or give a `job`"));
    }
    if let Some(key) = &take.key {
        let ok = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if key.is_empty() || key.len() > 128 || !key.bytes().all(ok) || key.starts_with("lse_") {
            let rule = "use 1 to 128 characters of A-Z, a-z, 0-9, -, _ and ., and do not begin with lse_";
            return Err(ApiError::invalid(format!("`key` is not valid: {rule}")));
        }
    }
    Ok(())
}

fn request(input: &Input, take: Take) -> Result<(LeaseRequest, Vec<String>), ApiError> {
    let ci = input.api.ci;
    let is_job = take.job.is_some();
    let cause = match take.job {
        Some(job) => Cause { job: Some(Box::new(job.cut())), ..Cause::of_kind(CauseKind::Ci) },
        None => Cause::of_kind(CauseKind::Lease),
    };
    let (mut limits, mut notes) = (None, Vec::new());
    let span = if is_job || take.function.is_none() {
        let (granted, cut) = ci.gitlab.grant(Wish { timeout: take.timeout, ..take.limits });
        if let Some(reason) = too_little(&granted) {
            return Err(ApiError::invalid(reason));
        }
        (limits, notes) = (Some(granted), cut);
        if is_job { granted.timeout.0 + ci.after.0 } else { granted.timeout.0 }
    } else {
        if !take.limits.is_empty() {
            return Err(ApiError::invalid("a function's sandbox has the function's limits: leave `limits` out"));
        }
        take.timeout.map(bounded).transpose()?.unwrap_or(USUAL)
    };
    let idle = take.idle.or(is_job.then_some(ci.idle)).map(|idle| idle.0.max(Duration::from_millis(1)));
    let wait = take.wait.map_or(if is_job { ci.wait.0 } else { Duration::from_secs(30) }, |wait| wait.0);
    let request = LeaseRequest {
        namespace: input.namespace().clone(),
        image: "host".to_owned(),
        key: take.key,
        cause,
        function: take.function,
        limits,
        span: span.min(LONGEST),
        idle,
        network: if is_job { ci.network } else { Network::None },
        work: is_job,
        cache: take.cache,
        masks: take.masks.into_iter().map(Secret::new).collect(),
        patience: wait.min(WAIT),
    };
    Ok((request, notes))
}

fn bounded(span: Span) -> Result<Duration, ApiError> {
    if span.0.is_zero() || span.0 > LONGEST {
        return Err(ApiError::invalid("`timeout`: write more than nothing and at most \"24h\""));
    }
    Ok(span.0)
}

/// Reads a JSON body. What is wrong is told by place, never by value: it may be a secret.
pub(super) fn json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        match error.classify() {
            serde_json::error::Category::Data => ApiError::invalid(format!("the body breaks a rule: {error}")),
            _ => ApiError::new(Code::BadJson, format!("the body is not JSON ({place})")),
        }
    })
}

/// Limits that are wanted of a sandbox: which are said.
impl Wish {
    fn is_empty(&self) -> bool {
        self.memory.is_none() && self.cpu.is_none() && self.pids.is_none() && self.tmp.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_refused_with_its_place() {
        let code = |text: &str| json::<Take>(text.as_bytes()).err().map(|error| error.code());
        assert_eq!(code("{}"), None);
        assert_eq!(code("{"), Some(Code::BadJson));
        assert_eq!(code(r#"{"colour":1}"#), Some(Code::Invalid));
        assert_eq!(code(r#"{"limits":{"memory":"1GB"}}"#), Some(Code::Invalid));
    }
}
