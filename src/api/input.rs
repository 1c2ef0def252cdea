//! What a handler gets, and the filter that collects it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, TryFutureExt as _, TryStreamExt as _};
use hyper::HeaderMap;
use hyper::header::HeaderName;
use runlet_core::name::Namespace;
use warp::Filter;
use warp::reply::Response;

use super::Api;
use super::auth::Caller;
use super::errors::ApiError;
use super::query::Query;
use crate::http::Peer;
use crate::http::body::{self, Body, BodyStream};

/// What the guard found out about a request; it travels in the request's extensions.
#[derive(Debug, Clone)]
pub(crate) struct Admitted {
    /// Who asks.
    pub caller: Caller,
    /// From where.
    pub peer: Peer,
    /// The query string, raw.
    pub query: String,
}

/// A request that the guard let in.
pub(crate) struct Input {
    /// What to work with.
    pub api: Arc<Api>,
    /// Who asks.
    pub caller: Caller,
    /// From where.
    pub peer: Peer,
    /// Headers.
    pub headers: HeaderMap,
    query: String,
    body: BodyStream,
}

impl Input {
    /// The namespace that the caller acts in.
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.caller.namespace
    }

    /// The query, which may have the `allowed` keys.
    ///
    /// # Errors
    /// `invalid` for any other.
    pub(crate) fn query(&self, allowed: &[&str]) -> Result<Query, ApiError> {
        Query::parse(&self.query, allowed)
    }

    /// A header as text; `None` where it is missing or no text.
    pub(crate) fn header(&self, name: impl Into<HeaderName>) -> Option<&str> {
        self.headers.get(name.into())?.to_str().ok()
    }

    /// Reads the body, at most `limit` bytes. To be called once: a second time it is empty.
    ///
    /// # Errors
    /// Too large, too slow, no room, broken.
    pub(crate) async fn body(&mut self, limit: usize) -> Result<Body, ApiError> {
        let stream = std::mem::replace(&mut self.body, Box::pin(futures_util::stream::empty()));
        Ok(body::read(stream, &self.headers, limit, &self.api.budget).await?)
    }

    /// The body as it comes in. To be called once: a second time it is empty.
    pub(crate) fn stream(&mut self) -> BodyStream {
        std::mem::replace(&mut self.body, Box::pin(futures_util::stream::empty()))
    }

    /// How long a long poll may last from here: nothing once the server stops.
    pub(crate) async fn until_stopping<T>(&self, patience: Duration, poll: impl Future<Output = T>) -> Option<T> {
        if patience.is_zero() {
            return Some(poll.await);
        }
        tokio::select! {
            result = poll => Some(result),
            () = self.api.stopping.cancelled() => None,
        }
    }
}

/// The last part of every route: everything a handler wants to know.
pub(super) fn input(
    api: &Arc<Api>,
) -> impl Filter<Extract = (Input,), Error = warp::Rejection> + Clone + Send + Sync + 'static {
    let api = Arc::clone(api);
    warp::path::end()
        .and(warp::ext::get::<Admitted>())
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .map(move |admitted: Admitted, headers, stream| {
            let Admitted { caller, peer, query } = admitted;
            let api = Arc::clone(&api);
            Input { api, caller, peer, headers, query, body: boxed(stream) }
        })
}

fn boxed<B: bytes::Buf>(
    stream: impl futures_util::Stream<Item = Result<B, warp::Error>> + Send + Sync + 'static,
) -> BodyStream {
    Box::pin(stream.map_ok(|mut chunk| chunk.copy_to_bytes(chunk.remaining())))
}

/// Makes a handler infallible: its error becomes the response.
pub(super) fn answer(
    handler: impl Future<Output = Result<Response, ApiError>> + Send + 'static,
) -> BoxFuture<'static, Response> {
    // On the heap at once: handlers are large futures, and each layer of a filter would move them. An `async` block would keep room for
    // it twice.
    handler.unwrap_or_else(|error| error.response()).boxed()
}
