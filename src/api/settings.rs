//! What is set for a function beside its revision: limits that change while it runs.

use std::sync::Arc;

use hyper::StatusCode;
use runlet_core::limits::Limits;
use runlet_core::name::FunctionName;
use runlet_core::problem::{Code, Problem};
use runlet_core::settings::{Change, Settings};
use runlet_core::store::function::Function;
use runlet_core::unit::ByteSize;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::Api;
use super::errors::ApiError;
use super::functions::checked;
use super::input::{Input, answer, input};
use super::precondition::{precondition, with_etag};
use crate::http::reply;

/// Largest request.
const REQUEST: usize = 16 << 10;

pub(super) fn filter(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let here = || warp::path::param::<String>().and(warp::path("settings"));
    let show = warp::get().and(here()).and(input(api)).then(|name, input| answer(show(name, input)));
    let change = warp::patch().and(here()).and(input(api)).then(|name, input| answer(change(name, input)));
    show.or(change).unify().boxed()
}

/// What is set for a function, and the limits that follow from it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SettingsBody {
    settings: Settings,
    /// The limits of its sandboxes now: those of its revision, with the settings over them.
    limits: Limits,
}

/// A change. What is not named stays as it is; `null` takes a setting away.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SettingsChange {
    /// Memory of a sandbox.
    #[serde(default, deserialize_with = "named")]
    #[schema(value_type = Option<String>, example = "512MiB")]
    memory: Option<Option<ByteSize>>,
    /// CPUs, as a fraction.
    #[serde(default, deserialize_with = "named")]
    #[schema(value_type = Option<f64>)]
    cpu: Option<Option<f64>>,
    /// Processes and threads.
    #[serde(default, deserialize_with = "named")]
    #[schema(value_type = Option<u32>)]
    pids: Option<Option<u32>>,
}

/// A field that is named, be it with `null`.
fn named<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

fn told(function: &Function) -> Response {
    let body = SettingsBody { settings: function.settings, limits: function.limits() };
    with_etag(reply::json(StatusCode::OK, &body), &function.settings.version())
}

/// Show what is set for a function
///
/// Settings go over the limits of its revisions, over this one and those that are deployed later.
#[utoipa::path(
    get,
    path = "/v1/functions/{name}/settings",
    tag = "functions",
    params(("name" = FunctionName, Path, description = "Name of the function")),
    responses(
        (status = 200, description = "The settings; their `ETag` goes into `If-Match` of a change", body = SettingsBody),
        (status = 404, description = "There is no such function", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show(name: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let name = checked(name)?;
    let function = input.api.store.function(input.namespace(), &name).await?;
    Ok(told(&function.ok_or_else(|| ApiError::not_found("function", &name))?))
}

/// Change limits of a function while it runs
///
/// Its sandboxes have the new limits when this answers, those in which code runs as well; so will all later ones, over deploys and
/// restarts. All or nothing: where one of them cannot have them, nothing is changed.
#[utoipa::path(
    patch,
    path = "/v1/functions/{name}/settings",
    tag = "functions",
    params(
        ("name" = FunctionName, Path, description = "Name of the function"),
        ("If-Match" = Option<String>, Header, description = "Only over this version: an `ETag`, or `*`")
    ),
    request_body(content = SettingsChange),
    responses(
        (status = 200, description = "The settings as they are now", body = SettingsBody),
        (status = 404, description = "There is no such function", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The host has no room for it now, or more memory is in use", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The settings are in another version", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn change(name: String, mut input: Input) -> Result<Response, ApiError> {
    let body = input.body(REQUEST).await?;
    input.query(&[])?;
    let name = checked(name)?;
    let precondition = precondition(&input.headers)?;
    let change = read(&body.bytes)?;
    let function = input.api.engine.configure(input.namespace(), &name, change, &precondition).await?;
    let limits = function.limits();
    tracing::info!(
        namespace = %function.namespace,
        function.name = %function.name,
        memory = %limits.memory,
        cpu = limits.cpu,
        pids = limits.pids,
        "settings changed"
    );
    Ok(told(&function))
}

fn read(body: &[u8]) -> Result<Change, ApiError> {
    let change: SettingsChange = serde_json::from_slice(body).map_err(|error| {
        let code = if error.is_data() { Code::Invalid } else { Code::BadJson };
        ApiError::new(
            code,
            format!("{error}; write what is to change, for example {{\"memory\": \"512MiB\", \"cpu\": 2}}"),
        )
    })?;
    let SettingsChange { memory, cpu, pids } = change;
    if memory.is_none() && cpu.is_none() && pids.is_none() {
        return Err(ApiError::invalid("nothing is to change: name memory, cpu or pids"));
    }
    Ok(Change { memory, cpu, pids })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_takes_a_setting_away_and_silence_leaves_it() {
        let change = read(b"{\"memory\": null, \"cpu\": 2}").expect("good");
        assert_eq!((change.memory, change.cpu, change.pids), (Some(None), Some(Some(2.0)), None));
        for bad in [&b"{}"[..], b"{\"timeout\": \"1s\"}", b"{\"memory\": \"much\"}", b"{\"pids\": -1}"] {
            assert_eq!(read(bad).err().map(|error| error.code()), Some(Code::Invalid));
        }
        assert_eq!(read(b"{").err().map(|error| error.code()), Some(Code::BadJson));
    }
}
