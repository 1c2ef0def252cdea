//! `GET /v1/openapi.json`: the API as a document, made of what stands beside the handlers.
//!
//! To document a route: put `#[utoipa::path(...)]` on its handler (method, path as in the table of routes with `{x..}` written
//! `{x}`, a `tag`, its parameters, and the answers that are its own), make the handler `pub(super)`, and name it in `paths(...)`
//! below. Bodies are structs with `ToSchema` that the handler really sends. What every route of its kind can answer (no token,
//! wrong role, no database, a body that is too large) is added here: see [`shared_answers`].
//!
//! Tests hold document, table and behaviour together: a route without a description, a description without a route, or an answer
//! with a status that is not described is a failure. `docs/openapi.json` is the document as of this commit; after a change,
//! `INSTA_UPDATE=always cargo test -p runlet openapi` writes it anew.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use hyper::Method;
use hyper::header::HeaderValue;
use runlet_core::engine::Stream;
use runlet_core::problem::Problem;
use utoipa::openapi::path::{Operation, Parameter, PathItem};
use utoipa::openapi::schema::{SchemaType, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, Ref, RefOr, Response as Described, ResponseBuilder, Schema, SecurityRequirement,
};
use utoipa::{Modify, OpenApi};
use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::errors::ApiError;
use super::input::{Input, answer, input};
use super::routes::{Access, ROUTES, Route};
use super::{
    Api, aliases, callbacks, calls, dead_letters, deliveries, deploy, exec, executions, functions, history, hooks,
    invocations, leases, rerun, revisions, settings, system, tokens, triggers,
};
use crate::http::reply;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Name of the security scheme.
const TOKEN: &str = "token";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "runlet",
        description = "Functions in sandboxes, started by webhooks and calls, with every execution on record. Times are \
                       RFC 3339 in UTC. Lists are pages: `next` of one goes into `before` (or `after`) of the next request. \
                       Every error is a problem document with a stable `code`."
    ),
    paths(
        system::health,
        system::capacity,
        system::metrics,
        history::size,
        self::show,
        hooks::receive,
        functions::list,
        functions::show,
        functions::remove,
        deploy::deploy,
        revisions::list,
        revisions::roll_back,
        settings::show,
        settings::change,
        aliases::list,
        aliases::show,
        aliases::set,
        aliases::remove,
        calls::call,
        invocations::show,
        invocations::result,
        invocations::payload,
        invocations::explain,
        invocations::cancel,
        rerun::rerun,
        dead_letters::list,
        dead_letters::redrive_many,
        dead_letters::redrive_one,
        dead_letters::drop,
        callbacks::list,
        callbacks::show,
        callbacks::retry,
        callbacks::cancel,
        executions::list,
        executions::show,
        executions::logs,
        deliveries::list,
        deliveries::show,
        deliveries::body,
        leases::list,
        leases::take,
        leases::show,
        leases::release,
        leases::renew,
        exec::exec,
        triggers::list,
        triggers::show,
        triggers::ticks,
        triggers::pause,
        triggers::resume,
        tokens::list,
        tokens::create,
        tokens::revoke,
    ),
    components(schemas(Problem, Stream)),
    tags(
        (name = "functions", description = "What is deployed, its revisions and aliases"),
        (name = "calls", description = "Calling functions, and what became of calls"),
        (name = "callbacks", description = "Who was told how asynchronous work ended"),
        (name = "history", description = "Executions and their output, deliveries"),
        (name = "leases", description = "Sandboxes to run commands in, for CI systems and for people"),
        (name = "hooks", description = "Webhooks"),
        (name = "triggers", description = "What starts functions: hooks and schedules"),
        (name = "server", description = "The server itself, its tokens and its health"),
    ),
    modifiers(&Shared)
)]
struct Document;

/// What all routes of a kind have in common.
struct Shared;

impl Modify for Shared {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(TOKEN, SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        for route in &ROUTES {
            let item = document.paths.paths.get_mut(&documented(route.pattern));
            if let Some(operation) = item.and_then(|item| operation(item, &route.method)) {
                complete(operation, route);
            }
        }
    }
}

/// Gives a route its own name, and adds what every route of this kind can answer, where its own description does not say it better.
fn complete(operation: &mut Operation, route: &Route) {
    let words = documented(route.pattern).replace("/v1", "").replace(['{', '}', '.'], "").replace('/', "_");
    operation.operation_id = Some(format!("{}{words}", route.method.as_str().to_ascii_lowercase()));
    operation.parameters.iter_mut().flatten().for_each(plain);
    let body = operation.request_body.is_some();
    for (status, words) in shared_answers(route, body) {
        operation.responses.responses.entry(status.to_owned()).or_insert_with(|| problem(words).into());
    }
    // Refused before it is known what was asked for: no problem document.
    let large = ResponseBuilder::new().description("The head of the request is larger than allowed").build();
    operation.responses.responses.entry("431".to_owned()).or_insert_with(|| large.into());
    let note = match route.access {
        Access::Role(role) => format!("Needs the role `{role}`, or one that includes it."),
        Access::RoleOrCi(role) => {
            format!("Needs the role `{role}`, or one that includes it. The role `ci` may, for its own jobs.")
        }
        Access::Operator => "Needs a token of namespace `default`, unless the operator has opened it.".to_owned(),
        Access::Anyone | Access::Signed => {
            operation.security = Some(Vec::new());
            return;
        }
    };
    let text = operation.description.take().map_or_else(|| note.clone(), |text| format!("{text}\n\n{note}"));
    operation.description = Some(text);
    operation.security = Some(vec![SecurityRequirement::new::<_, [&str; 0], &str>(TOKEN, [])]);
}

/// A parameter that may be left out is not one that may be null.
fn plain(parameter: &mut RefOr<Parameter>) {
    let RefOr::T(Parameter { schema: Some(RefOr::T(Schema::Object(object))), .. }) = parameter else { return };
    if let SchemaType::Array(types) = &object.schema_type
        && let Some(only) = types.iter().find(|one| **one != Type::Null)
    {
        object.schema_type = SchemaType::Type(only.clone());
    }
}

fn shared_answers(route: &Route, body: bool) -> Vec<(&'static str, &'static str)> {
    let mut all = vec![("500", "A fault of runlet itself"), ("503", "It cannot be done now; `Retry-After` says when")];
    if let Access::Role(_) | Access::RoleOrCi(_) | Access::Operator = route.access {
        all.push(("401", "No valid token came with the request"));
        all.push(("403", "The token's role or namespace does not allow it"));
        all.push(("422", "The request breaks a rule; `detail` says which"));
    }
    if body {
        all.push(("400", "The body is not what it says it is, or broke off"));
        all.push(("408", "The body did not come in time"));
        all.push(("413", "The body is larger than allowed"));
        all.push(("429", "Too much is waiting or in memory already; `Retry-After` says when to try again"));
    }
    all
}

/// A problem document as an answer.
fn problem(words: &str) -> Described {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(words).content("application/problem+json", content).build()
}

/// The path of a pattern of the table as the document writes it.
fn documented(pattern: &str) -> String {
    pattern.replace("..}", "}")
}

fn operation<'a>(item: &'a mut PathItem, method: &Method) -> Option<&'a mut Operation> {
    let slot = match method.as_str() {
        "GET" => &mut item.get,
        "PUT" => &mut item.put,
        "POST" => &mut item.post,
        "DELETE" => &mut item.delete,
        "PATCH" => &mut item.patch,
        _ => return None,
    };
    slot.as_mut()
}

/// The document, written once.
static TEXT: LazyLock<Result<Bytes, String>> =
    LazyLock::new(|| Document::openapi().to_pretty_json().map(Bytes::from).map_err(|error| error.to_string()));

pub(super) fn filter(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    warp::path("openapi.json").and(warp::get()).and(input(api)).then(|input| answer(show(input))).boxed()
}

/// This document
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    tag = "server",
    responses((status = 200, description = "OpenAPI 3.1", body = Object), (status = 422, description = "It takes no query key", body = Problem, content_type = "application/problem+json"))
)]
pub(super) async fn show(input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    match &*TEXT {
        Ok(text) => Ok(reply::bytes(JSON, text.clone())),
        Err(error) => {
            tracing::error!(error, "the API's document could not be written");
            Ok(reply::internal())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Method and path of everything that is described.
    fn described() -> BTreeSet<String> {
        let document: serde_json::Value =
            serde_json::from_slice(TEXT.as_ref().expect("it can be written")).expect("JSON");
        let paths = document["paths"].as_object().expect("an object");
        paths
            .iter()
            .flat_map(|(path, item)| {
                let methods = item.as_object().expect("an object").keys();
                methods.map(move |method| format!("{} {path}", method.to_uppercase()))
            })
            .collect()
    }

    #[test]
    fn every_route_is_described_and_nothing_else_is() {
        let routes: BTreeSet<String> =
            ROUTES.iter().map(|route| format!("{} {}", route.method, documented(route.pattern))).collect();
        let described = described();
        let (missing, invented): (Vec<_>, Vec<_>) =
            (routes.difference(&described).collect(), described.difference(&routes).collect());
        assert!(missing.is_empty(), "routes without a description (see the head of src/api/openapi.rs): {missing:?}");
        assert!(invented.is_empty(), "descriptions without a route: {invented:?}");
    }

    #[test]
    fn the_document_in_the_tree_is_the_one_that_is_served() {
        let text = std::str::from_utf8(TEXT.as_ref().expect("it can be written")).expect("text");
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
        if std::env::var("INSTA_UPDATE").is_ok_and(|wish| wish == "always") {
            std::fs::write(path, format!("{text}\n")).expect("writable");
        }
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            kept.trim_end() == text,
            "docs/openapi.json is not what the code says; `INSTA_UPDATE=always cargo test -p runlet openapi` writes it anew, \
             then look at the difference"
        );
    }

    #[test]
    fn everything_has_words_and_every_reference_leads_somewhere() {
        let text = std::str::from_utf8(TEXT.as_ref().expect("it can be written")).expect("text");
        let document: serde_json::Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(document["openapi"], "3.1.0");
        let mut names = BTreeSet::new();
        for (path, item) in document["paths"].as_object().expect("an object") {
            for (method, operation) in item.as_object().expect("an object") {
                assert!(operation["summary"].is_string(), "{method} {path} has no summary");
                assert!(names.insert(operation["operationId"].to_string()), "{method} {path} has the name of another");
                assert!(operation["tags"][0] != "crate", "{method} {path} has no tag");
            }
        }
        for reference in text.split("\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().expect("a name");
            assert!(document["components"]["schemas"][name].is_object(), "{name} is not described");
        }
    }
}
