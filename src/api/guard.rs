//! The guard: asks the table of routes what a request is and who may, and only then lets the filters have it.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{ALLOW, EXPECT, HeaderValue, WWW_AUTHENTICATE};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use runlet_core::problem::Code;
use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::auth;
use super::errors::ApiError;
use super::input::Admitted;
use super::routes::{self, Access, Found};
use super::{Api, filter};
use crate::http::body::discard;
use crate::http::front::{self, RoutePattern};
use crate::http::{Crowding, Peer, reply};

/// The whole API as one function from request to response. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Guard {
    api: Arc<Api>,
    filters: BoxedFilter<(Response,)>,
}

impl Guard {
    /// Guards `api`.
    pub(crate) fn new(api: Arc<Api>) -> Self {
        let recovered = filter(&api).recover(unrouted).unify().boxed();
        Self { filters: recovered, api }
    }

    /// Answers a request.
    pub(crate) async fn answer(self, request: Request<Incoming>, peer: Peer) -> Response {
        let (method, trace) = (request.method().clone(), front::trace(request.headers()));
        front::pass(&self.api.ids, method, trace, self.enter(request, peer)).await
    }

    async fn enter(&self, mut request: Request<Incoming>, peer: Peer) -> Response {
        if request.extensions().get::<Crowding>().is_some() {
            let detail = "this connection has many requests open, and so have others; let some end, then try again";
            return ApiError::new(Code::QueueFull, detail).response();
        }
        let route = match routes::find(request.method(), request.uri().path()) {
            Found::Route(route) => route,
            Found::Nothing => {
                let detail = "there is nothing at this path; the API is below /v1, webhooks are below /hooks";
                return refuse(request, &ApiError::new(Code::NotFound, detail), None).await;
            }
            Found::OtherMethod(allow) => {
                let detail = format!("this path does not take {}; it takes {allow}", request.method());
                let error = ApiError::new(Code::MethodNotAllowed, detail);
                return refuse(request, &error, Some(&allow)).await;
            }
        };
        let access = match route.access {
            Access::Operator if self.api.metrics_public => Access::Anyone,
            access => access,
        };
        let admitted = auth::admit(&self.api.store, &self.api.tokens, request.headers(), peer, access).await;
        let mut response = match admitted {
            Ok(caller) => {
                let query = request.uri().query().unwrap_or_default().to_owned();
                request.extensions_mut().insert(Admitted { caller, peer, query });
                let service = TowerToHyperService::new(warp::service(self.filters.clone()));
                service.call(request).await.unwrap_or_else(|never: Infallible| match never {})
            }
            Err(error) => refuse(request, &error, None).await,
        };
        response.extensions_mut().insert(RoutePattern(route.pattern));
        response
    }
}

/// Answers without the filters. What the client still sends is read first, so that it gets to read the answer.
async fn refuse(request: Request<Incoming>, error: &ApiError, allow: Option<&str>) -> Response {
    if !request.headers().contains_key(EXPECT) {
        discard(request.into_body().into_data_stream()).await;
    }
    let mut response = error.response();
    if let Some(allow) = allow {
        reply::set(&mut response, ALLOW, allow);
    }
    if response.status() == hyper::StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// A request that is in the table and that no filter took: the two disagree, which a test keeps from happening.
async fn unrouted(_: warp::Rejection) -> Result<Response, Infallible> {
    tracing::error!("a route of the table has no handler");
    Ok(reply::internal())
}
