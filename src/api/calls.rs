//! Calling a function: wait for the result, or have it accepted and go.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use runlet_core::cause::{Cause, CauseKind};
use runlet_core::engine::{Accepted, DedupKey, NewInvocation, Reply, Submission};
use runlet_core::id::InvocationId;
use runlet_core::invocation::InvocationState;
use runlet_core::name::{BadName, FunctionName, RevisionDigest};
use runlet_core::problem::{Code, Problem};
use runlet_core::target::{Target, Which};
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use utoipa::ToSchema;
use warp::reply::Response;

use super::errors::ApiError;
use super::input::Input;
use super::shapes::Anything;
use super::streamed;
use super::when::{When, known, when};
use crate::http::{front, reply};

/// Largest payload.
const PAYLOAD: usize = 25 << 20;
/// Longest idempotency key.
const KEY: usize = 200;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const PREFER: HeaderName = HeaderName::from_static("prefer");
const APPLIED: HeaderName = HeaderName::from_static("preference-applied");
pub(super) const INVOCATION: HeaderName = HeaderName::from_static("runlet-invocation");
pub(super) const EXECUTION: HeaderName = HeaderName::from_static("runlet-execution");
const OUTCOME: HeaderName = HeaderName::from_static("runlet-outcome");

/// Call a function
///
/// The body is the event. The answer is the result itself; `Runlet-Invocation`, `Runlet-Execution` and `Runlet-Outcome` say
/// what ran. A function that failed is a problem document.
#[utoipa::path(
    post,
    path = "/v1/functions/{name}/invocations",
    tag = "calls",
    params(
        ("name" = String, Path, description = "`NAME`, `NAME@ALIAS` or `NAME@sha256:...`", pattern = "^[a-z0-9-]{1,63}(@[a-z0-9:-]{1,71})?$"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`: have it queued, and do not wait"),
        ("Idempotency-Key" = Option<String>, Header, description = "With `respond-async`: a repeat gets the first invocation", max_length = 200),
        ("Runlet-Delay" = Option<String>, Header, description = "With `respond-async`: not before so long from now, like `10m`"),
        ("Runlet-Not-Before" = Option<String>, Header, description = "With `respond-async`: not before this moment (RFC 3339)"),
        ("Runlet-Priority" = Option<i16>, Header, description = "With `respond-async`: higher goes first, 0 is usual", minimum = -100, maximum = 100)
    ),
    request_body(content = Anything, content_type = "application/json", description = "The event, 25 MiB at most; any content type"),
    responses(
        (status = 200, description = "The result, with the content type that the function gave it", content_type = "*/*", body = Anything),
        (status = 202, description = "It is queued", body = AcceptedBody),
        (status = 404, description = "There is no such function, alias or revision", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Somebody cancelled it", body = Problem, content_type = "application/problem+json"),
        (status = 502, description = "The function failed", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "The function ran longer than its timeout", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn call(name: String, mut input: Input) -> Result<Response, ApiError> {
    // The body first, whatever else is wrong: a client that is cut off while it sends does not read the answer.
    let body = input.body(PAYLOAD).await?;
    input.query(&[])?;
    let target: Target = name.parse().map_err(|error: BadName| ApiError::invalid(error.to_string()))?;
    let respond_async = input.header(PREFER).is_some_and(wants_async);
    let key = idempotency_key(&input, respond_async)?;
    let When { not_before, priority } = when(&input, respond_async)?;
    let content_type = input.header(CONTENT_TYPE).map(str::to_owned);
    if content_type.as_deref().is_some_and(is_json) && !body.bytes.is_empty() {
        serde_json::from_slice::<IgnoredAny>(&body.bytes)
            .map_err(|error| ApiError::new(Code::BadJson, format!("the body is not JSON: {error}")))?;
    }
    let revision = revision(&input, &target).await?;
    let function = target.function;
    let invocation = NewInvocation {
        namespace: input.namespace().clone(),
        dedup: key.map(|key| DedupKey { scope: format!("api/{function}"), key }),
        function,
        revision,
        cause: Cause { trace: front::trace(&input.headers), ..Cause::of_kind(CauseKind::Http) },
        payload: body.bytes.clone(),
        content_type,
        priority,
        not_before,
        deadline: None,
    };
    if respond_async {
        return submit(&input, invocation).await;
    }
    streamed::answer(Arc::clone(&input.api), invocation, body).await
}

/// An invocation that is accepted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AcceptedInvocation {
    id: InvocationId,
    function: FunctionName,
    /// Whether its key was known, so that nothing new was queued.
    repeated: bool,
    /// For a repeat: the state that the first one is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<InvocationState>,
    /// For a repeat of one that has succeeded: its result, if that is JSON of 256 KiB at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
}

impl From<Accepted> for AcceptedInvocation {
    fn from(accepted: Accepted) -> Self {
        let Accepted { invocation: id, function, repeated } = accepted;
        Self { id, function, repeated, state: None, result: None }
    }
}

/// What an asynchronous call is answered with.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AcceptedBody {
    invocation: AcceptedInvocation,
}

/// The revision that a target means; `None`: the current one, whichever that is when it is accepted.
async fn revision(input: &Input, target: &Target) -> Result<Option<RevisionDigest>, ApiError> {
    if target.which == Which::Current {
        return Ok(None);
    }
    let current = input.api.store.current(input.namespace(), &target.function).await?;
    let current = current.ok_or_else(|| ApiError::not_found("function", &target.function))?;
    match &target.which {
        Which::Current => Ok(None),
        Which::Revision(digest) => Ok(Some(digest.clone())),
        Which::Alias(name) => {
            let alias = current.alias(name).ok_or_else(|| ApiError::not_found("alias", target))?;
            Ok(alias.pick().map_err(|error| ApiError::internal(&error))?.cloned())
        }
    }
}

async fn submit(input: &Input, invocation: NewInvocation) -> Result<Response, ApiError> {
    let submission = Submission { delivery: None, invocations: vec![invocation] };
    let submitted = input.api.engine.submit(submission).await?;
    let Some(accepted) = submitted.invocations.into_iter().next() else {
        return Err(ApiError::new(Code::Internal, "the engine accepted nothing; the server's log tells more"));
    };
    let location = format!("/v1/invocations/{}", accepted.invocation);
    let mut body = AcceptedBody { invocation: accepted.into() };
    if body.invocation.repeated {
        (body.invocation.state, body.invocation.result) = known(input, body.invocation.id).await?;
    }
    let mut response = reply::json(StatusCode::ACCEPTED, &body);
    reply::set(&mut response, LOCATION, &location);
    response.headers_mut().insert(APPLIED, HeaderValue::from_static("respond-async"));
    Ok(response)
}

/// The response of a synchronous call: the result itself, or a problem for every outcome but `ok`.
pub(super) fn replied(result: Reply) -> Response {
    let Reply { invocation, execution, outcome, result, content_type } = result;
    let kind = outcome.kind;
    let mut response = match Code::of_outcome(kind) {
        None => reply::bytes(media_type(&content_type), result),
        Some(code) => ApiError::of_outcome(code, invocation, execution, outcome).response(),
    };
    reply::set(&mut response, INVOCATION, &invocation.to_string());
    reply::set(&mut response, EXECUTION, &execution.to_string());
    response.headers_mut().insert(OUTCOME, HeaderValue::from_static(kind.as_str()));
    response
}

fn wants_async(prefer: &str) -> bool {
    prefer
        .split(',')
        .any(|part| part.split(';').next().is_some_and(|word| word.trim().eq_ignore_ascii_case("respond-async")))
}

/// The content type as a header; the engine's own words always are one.
fn media_type(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("application/octet-stream"))
}

fn is_json(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media == "application/json" || (media.starts_with("application/") && media.ends_with("+json"))
}

fn idempotency_key(input: &Input, respond_async: bool) -> Result<Option<String>, ApiError> {
    let Some(value) = input.headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    if text.is_empty() || text.len() > KEY || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ApiError::invalid(format!("header Idempotency-Key: write 1 to {KEY} visible ASCII characters")));
    }
    if !respond_async {
        return Err(ApiError::invalid(
            "Idempotency-Key is for asynchronous calls: send `Prefer: respond-async` with it, or leave it out",
        ));
    }
    Ok(Some(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use runlet_core::id::ExecutionId;
    use runlet_core::outcome::{Outcome, OutcomeKind};

    use super::*;

    #[test]
    fn a_function_that_failed_is_never_a_2xx() {
        for kind in OutcomeKind::ALL {
            let response = replied(Reply {
                invocation: InvocationId::new(),
                execution: ExecutionId::new(),
                outcome: Outcome::of(kind),
                result: bytes::Bytes::from_static(b"{}"),
                content_type: "application/json".into(),
            });
            assert_eq!(response.status().is_success(), kind == OutcomeKind::Ok, "{kind}");
            assert_eq!(response.headers()[OUTCOME], kind.as_str());
        }
    }

    #[test]
    fn preferences_and_media_types_are_read_as_http_says() {
        assert!(wants_async("respond-async"));
        assert!(wants_async("wait=10, Respond-Async;x=1"));
        assert!(!wants_async("respond-asynchronously"));
        for text in ["application/json", "Application/JSON; charset=utf-8", "application/cloudevents+json"] {
            assert!(is_json(text), "{text}");
        }
        assert!(!is_json("text/json-ish"));
    }
}
