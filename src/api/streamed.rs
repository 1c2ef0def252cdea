//! Answers to calls: whole, or in pieces as the function makes them.
//!
//! An answer in pieces has begun with 200 before anybody knows how the call will end. Its end is therefore the news: it ends
//! cleanly only once the execution is on record as a success; anything else breaks the connection.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use runlet_core::engine::{EngineError, NewInvocation, Reply, ResultPiece};
use tokio::sync::mpsc;
use warp::Reply as _;
use warp::reply::Response;

use super::Api;
use super::calls::{EXECUTION, INVOCATION, replied};
use super::errors::ApiError;
use crate::http::body::Body;
use crate::http::reply;

/// Pieces on their way to the connection; behind them the function waits.
const ON_THE_WAY: usize = 4;

type Call = BoxFuture<'static, Result<Reply, EngineError>>;

/// Makes the call and answers it. `body` holds its part of the budget until the call has ended.
pub(super) async fn answer(api: Arc<Api>, invocation: NewInvocation, body: Body) -> Result<Response, ApiError> {
    let (sender, mut pieces) = mpsc::channel(ON_THE_WAY);
    let mut call: Call = Box::pin(async move {
        let reply = api.engine.call_in_pieces(invocation, sender).await;
        drop(body);
        reply
    });
    tokio::select! {
        biased;
        reply = &mut call => Ok(replied(reply?)),
        Some(ResultPiece::Begins { invocation, execution, content_type }) = pieces.recv() => {
            let mut response = warp::reply::stream(Pieces { pieces, call: Mutex::new(call), over: false }).into_response();
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            reply::set(&mut response, INVOCATION, &invocation.to_string());
            reply::set(&mut response, EXECUTION, &execution.to_string());
            Ok(response)
        }
    }
}

/// A call whose result comes in pieces. Dropping it ends nothing.
struct Pieces {
    pieces: mpsc::Receiver<ResultPiece>,
    /// Never locked: the body of a response has to be `Sync`, and a future is not.
    call: Mutex<Call>,
    over: bool,
}

impl Stream for Pieces {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        while let Some(piece) = ready!(self.pieces.poll_recv(context)) {
            if let ResultPiece::Bytes(bytes) = piece {
                return Poll::Ready(Some(Ok(bytes)));
            }
        }
        // All pieces are through, and the execution has ended.
        let call = self.call.get_mut().unwrap_or_else(PoisonError::into_inner);
        let reply = ready!(call.as_mut().poll(context));
        self.over = true;
        let broken = match reply {
            Ok(reply) if reply.outcome.is_ok() => return Poll::Ready(None),
            Ok(reply) => format!("the execution ended as {} amid its answer", reply.outcome.kind),
            Err(error) => format!("the call failed amid its answer: {error}"),
        };
        tracing::debug!(error = broken, "an answer is cut off");
        Poll::Ready(Some(Err(std::io::Error::other(broken))))
    }
}
