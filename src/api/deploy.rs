//! Deploying: an archive becomes a revision, and the function points at it.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use runlet_core::manifest::{Destination, EnvValue, Manifest, TriggerSpec};
use runlet_core::name::{FunctionName, Namespace, SecretName};
use runlet_core::problem::Problem;
use runlet_core::store::function::{Function, NewRevision};
use runlet_runtimes::archive;
use runlet_triggers::cron;
use serde::Serialize;
use utoipa::ToSchema;
use warp::reply::Response;

use super::errors::ApiError;
use super::functions::checked;
use super::input::Input;
use super::precondition::{precondition, with_etag};
use super::shapes::Octets;
use crate::http::reply;

/// Largest archive.
const ARCHIVE: usize = 50 << 20;

/// What a deploy did.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeployBody {
    function: Function,
    /// Whether the revision is new to the namespace.
    new_revision: bool,
    /// Paths of the function's webhooks.
    hooks: Vec<String>,
}

/// Deploy a function
///
/// The body is an uncompressed tar with `function.toml` at its top. The same content is the same revision.
#[utoipa::path(
    put,
    path = "/v1/functions/{name}",
    tag = "functions",
    params(
        ("name" = FunctionName, Path, description = "Name of the function, as in function.toml"),
        ("If-Match" = Option<String>, Header, description = "Deploy only over this version: an `ETag`, or `*`"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if the function is new")
    ),
    request_body(content = Octets, content_type = "application/x-tar", description = "The archive, 50 MiB at most"),
    responses(
        (status = 200, description = "The revision was known", body = DeployBody),
        (status = 201, description = "The revision is new", body = DeployBody),
        (status = 409, description = "Another function has the hook's path", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The function is in another version", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn deploy(name: String, mut input: Input) -> Result<Response, ApiError> {
    input.api.disk.check()?;
    let body = input.body(ARCHIVE).await?;
    input.query(&[])?;
    let name = checked(name)?;
    let precondition = precondition(&input.headers)?;
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
    secrets_exist(&input, &manifest).map_err(ApiError::invalid)?;
    brokers_exist(&input, &manifest).map_err(ApiError::invalid)?;
    cron::check(&manifest).map_err(|error| ApiError::invalid(format!("function.toml: {error}")))?;
    let namespace = input.namespace().clone();
    let hooks = hooks(&namespace, &manifest);
    if input.caller.local_admin {
        api.store.ensure_namespace(&namespace).await?;
    }
    let (digest, archive) = (normalised.digest, normalised.archive);
    let deployed = api.store.deploy(NewRevision { namespace, digest, manifest, archive, precondition }).await?;
    let function = deployed.function;
    tracing::info!(
        namespace = %function.namespace,
        function.name = %function.name,
        revision = %function.revision.short(),
        new = deployed.new_revision,
        "function deployed"
    );
    let status = if deployed.new_revision { StatusCode::CREATED } else { StatusCode::OK };
    let version = function.revision.to_string();
    let body = DeployBody { function, new_revision: deployed.new_revision, hooks };
    Ok(with_etag(reply::json(status, &body), &version))
}

/// Every secret that the manifest names must exist, be free for the namespace and be of use: otherwise the first call would fail.
pub(super) fn secrets_exist(input: &Input, manifest: &Manifest) -> Result<(), String> {
    let namespace = input.namespace();
    if let Some((key, name)) = secrets(manifest).find(|(_, name)| input.api.secrets.get(namespace, name).is_none()) {
        return Err(format!(
            "function.toml: {key}: secret `{name}` is not configured for namespace `{namespace}`; the operator adds \
             [secrets.{name}] with file = \"...\" and namespaces = [\"{namespace}\"] to the server's configuration \
             and restarts it"
        ));
    }
    for (table, destination) in destinations(manifest) {
        let Destination::Http { secret: name, .. } = destination else { continue };
        let Some(secret) = input.api.secrets.get(namespace, name) else { continue };
        runlet_integrations::can_sign(&secret)
            .map_err(|what| format!("function.toml: {table}.secret: secret `{name}` {what}"))?;
    }
    for trigger in &manifest.triggers {
        let TriggerSpec::Webhook(hook) = trigger else { continue };
        let secret = hook.secret.as_ref().and_then(|name| Some((name, input.api.secrets.get(namespace, name)?)));
        let Some((name, secret)) = secret else { continue };
        runlet_integrations::adapter(hook.adapter).usable(&secret).map_err(|what| {
            let adapter = hook.adapter.as_str();
            format!("function.toml: trigger.secret: secret `{name}` for adapter \"{adapter}\" {what}")
        })?;
    }
    Ok(())
}

/// Every broker that the manifest names must be configured, and be free for the namespace.
pub(super) fn brokers_exist(input: &Input, manifest: &Manifest) -> Result<(), String> {
    let namespace = input.namespace();
    let sources = manifest.triggers.iter().filter_map(|trigger| match trigger {
        TriggerSpec::Queue(spec) => Some(("trigger.source".to_owned(), spec.source.as_ref()?)),
        TriggerSpec::Webhook(_) | TriggerSpec::Cron(_) => None,
    });
    let told = destinations(manifest).filter_map(|(table, destination)| match destination {
        Destination::Queue { broker, .. } => Some((format!("{table}.broker"), broker.as_ref()?)),
        Destination::Function { .. } | Destination::Http { .. } => None,
    });
    for (key, name) in sources.chain(told) {
        if !input.api.brokers.has(namespace, name) {
            return Err(format!(
                "function.toml: {key}: broker `{name}` is not configured for namespace `{namespace}`; the operator adds \
                 [brokers.{name}] with url = \"...\" and namespaces = [\"{namespace}\"] to the server's configuration and restarts it"
            ));
        }
    }
    Ok(())
}

/// The secrets that a manifest names, with the keys that name them.
fn secrets(manifest: &Manifest) -> impl Iterator<Item = (String, &SecretName)> {
    let env = manifest.env.iter().filter_map(|(variable, value)| match value {
        EnvValue::Secret(name) => Some((format!("env.{variable}"), name)),
        EnvValue::Plain(_) => None,
    });
    let triggers = manifest.triggers.iter().filter_map(|trigger| match trigger {
        TriggerSpec::Webhook(hook) => Some(("trigger.secret".to_owned(), hook.secret.as_ref()?)),
        TriggerSpec::Cron(_) | TriggerSpec::Queue(_) => None,
    });
    let destinations = destinations(manifest).filter_map(|(table, destination)| match destination {
        Destination::Http { secret, .. } => Some((format!("{table}.secret"), secret)),
        Destination::Function { .. } | Destination::Queue { .. } => None,
    });
    env.chain(triggers).chain(destinations)
}

/// Who is told of ends, with the tables that say so.
fn destinations(manifest: &Manifest) -> impl Iterator<Item = (&'static str, &Destination)> {
    [("on_success", &manifest.on_success), ("on_failure", &manifest.on_failure)]
        .into_iter()
        .filter_map(|(table, destination)| Some((table, destination.as_ref()?)))
}

fn hooks(namespace: &Namespace, manifest: &Manifest) -> Vec<String> {
    let mut paths: Vec<String> = manifest
        .triggers
        .iter()
        .filter_map(|trigger| match trigger {
            TriggerSpec::Webhook(hook) => Some(format!("/hooks/{namespace}/{}", hook.path)),
            TriggerSpec::Cron(_) | TriggerSpec::Queue(_) => None,
        })
        .collect();
    paths.dedup();
    paths
}
