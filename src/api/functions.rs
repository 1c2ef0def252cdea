//! Functions: list, show, deploy, remove.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use runlet_core::manifest::{EnvValue, Manifest, TriggerSpec};
use runlet_core::name::{FunctionName, Namespace, SecretName};
use runlet_core::store::function::{Function, NewRevision};
use runlet_runtimes::archive;
use runlet_triggers::cron;
use serde::Serialize;
use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::errors::ApiError;
use super::input::{Input, answer, input};
use super::{Api, calls};
use crate::http::reply;

/// Largest archive.
const ARCHIVE: usize = 50 << 20;

pub(super) fn filter(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let one = || warp::path::param::<String>();
    let list = warp::get().and(input(api)).then(|input| answer(list(input)));
    let show = warp::get().and(one()).and(input(api)).then(|name, input| answer(show(name, input)));
    let deploy = warp::put().and(one()).and(input(api)).then(|name, input| answer(deploy(name, input)));
    let remove = warp::delete().and(one()).and(input(api)).then(|name, input| answer(remove(name, input)));
    let call = warp::post()
        .and(one())
        .and(warp::path("invocations"))
        .and(input(api))
        .then(|name, input| answer(calls::call(name, input)));
    // The call comes first: it is the one that must be fast.
    let routes = call.or(list).unify().or(show).unify().or(deploy).unify().or(remove).unify();
    warp::path("functions").and(routes).boxed()
}

fn checked(name: String) -> Result<FunctionName, ApiError> {
    FunctionName::new(name).map_err(|error| ApiError::invalid(error.to_string()))
}

async fn list(input: Input) -> Result<Response, ApiError> {
    let query = input.query(&["after", "limit"])?;
    let (after, limit) = (query.read::<FunctionName>("after")?, query.limit(100, 1000)?);
    // One more than asked for tells whether there is another page.
    let rows = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let mut functions = input.api.store.functions(input.namespace(), after.as_ref(), rows).await?;
    let more = functions.len() > limit;
    functions.truncate(limit);
    let next = functions.last().filter(|_| more).map(|last| last.name.to_string());
    Ok(reply::page("functions", &functions, next))
}

async fn show(name: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let name = checked(name)?;
    let function = input.api.store.function(input.namespace(), &name).await?;
    let function = function.ok_or_else(|| ApiError::not_found("function", &name))?;
    Ok(reply::envelope("function", &function))
}

async fn remove(name: String, input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let name = checked(name)?;
    if !input.api.store.remove_function(input.namespace(), &name).await? {
        return Err(ApiError::not_found("function", &name));
    }
    tracing::info!(namespace = %input.namespace(), function.name = %name, "function removed");
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

async fn deploy(name: String, mut input: Input) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Body {
        function: Function,
        new_revision: bool,
        hooks: Vec<String>,
    }
    let body = input.body(ARCHIVE).await?;
    input.query(&[])?;
    let name = checked(name)?;
    if input.header(CONTENT_TYPE).is_some_and(|kind| !matches!(kind, "application/x-tar" | "application/octet-stream"))
    {
        return Err(ApiError::invalid("the body is a tar archive: send it as Content-Type: application/x-tar"));
    }
    let api = Arc::clone(&input.api);
    let room = api.deploys.acquire().await.map_err(|error| ApiError::internal(&error))?;
    let archive = body.bytes.clone();
    let normalised = tokio::task::spawn_blocking(move || archive::normalise(&archive))
        .await
        .map_err(|error| ApiError::internal(&error))?
        .map_err(|error| ApiError::invalid(error.to_string()))?;
    drop((room, body));
    let manifest = normalised.manifest;
    if manifest.name != name {
        return Err(ApiError::invalid(format!(
            "function.toml: name: it says `{}` and the request says `{name}`; make them the same",
            manifest.name
        )));
    }
    secrets_exist(&input, &manifest)?;
    cron::check(&manifest).map_err(|error| ApiError::invalid(format!("function.toml: {error}")))?;
    let namespace = input.namespace().clone();
    let hooks = hooks(&namespace, &manifest);
    if input.caller.local_admin {
        api.store.ensure_namespace(&namespace).await?;
    }
    let (digest, archive) = (normalised.digest, normalised.archive);
    let deployed = api.store.deploy(NewRevision { namespace, digest, manifest, archive }).await?;
    let function = deployed.function;
    tracing::info!(
        namespace = %function.namespace,
        function.name = %function.name,
        revision = %function.revision.short(),
        new = deployed.new_revision,
        "function deployed"
    );
    let status = if deployed.new_revision { StatusCode::CREATED } else { StatusCode::OK };
    Ok(reply::json(status, &Body { function, new_revision: deployed.new_revision, hooks }))
}

/// Every secret that the manifest names must exist and be free for the namespace: otherwise the first call would fail.
fn secrets_exist(input: &Input, manifest: &Manifest) -> Result<(), ApiError> {
    let namespace = input.namespace();
    match secrets(manifest).find(|(_, name)| input.api.secrets.get(namespace, name).is_none()) {
        None => Ok(()),
        Some((key, name)) => Err(ApiError::invalid(format!(
            "function.toml: {key}: secret `{name}` is not configured for namespace `{namespace}`; the operator adds \
             [secrets.{name}] with file = \"...\" and namespaces = [\"{namespace}\"] to the server's configuration \
             and restarts it"
        ))),
    }
}

/// The secrets that a manifest names, with the keys that name them.
fn secrets(manifest: &Manifest) -> impl Iterator<Item = (String, &SecretName)> {
    let env = manifest.env.iter().filter_map(|(variable, value)| match value {
        EnvValue::Secret(name) => Some((format!("env.{variable}"), name)),
        EnvValue::Plain(_) => None,
    });
    let triggers = manifest.triggers.iter().filter_map(|trigger| match trigger {
        TriggerSpec::Webhook(hook) => Some(("trigger.secret".to_owned(), &hook.secret)),
        TriggerSpec::Cron(_) => None,
    });
    env.chain(triggers)
}

fn hooks(namespace: &Namespace, manifest: &Manifest) -> Vec<String> {
    let mut paths: Vec<String> = manifest
        .triggers
        .iter()
        .filter_map(|trigger| match trigger {
            TriggerSpec::Webhook(hook) => Some(format!("/hooks/{namespace}/{}", hook.path)),
            TriggerSpec::Cron(_) => None,
        })
        .collect();
    paths.dedup();
    paths
}
