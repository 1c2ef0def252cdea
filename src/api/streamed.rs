//! Answers to calls: whole, or in pieces as the function makes them.
//!
//! An answer in pieces has begun with 200 before anybody knows how the call will end. Its end is therefore the news: it ends
//! cleanly only once the execution is on record as a success; anything else breaks the connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use runlet_core::engine::{NewInvocation, ResultPiece};
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

/// Makes the call and answers it. `body` holds its part of the budget until the call has ended.
pub(super) async fn answer(api: Arc<Api>, invocation: NewInvocation, body: Body) -> Result<Response, ApiError> {
    let (sender, mut pieces) = mpsc::channel(ON_THE_WAY);
    let call = api.engine.call_in_pieces(invocation, sender);
    tokio::select! {
        biased;
        reply = call => Ok(replied(reply?)),
        // The call goes on by itself from here: a connection that is not read must not hold it up.
        Some(ResultPiece::Begins { invocation, execution, content_type }) = pieces.recv() => {
            let mut response = warp::reply::stream(Pieces { pieces, over: false, _body: body }).into_response();
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            reply::set(&mut response, INVOCATION, &invocation.to_string());
            reply::set(&mut response, EXECUTION, &execution.to_string());
            Ok(response)
        }
    }
}

/// A result that comes in pieces. Dropping it ends nothing.
struct Pieces {
    pieces: mpsc::Receiver<ResultPiece>,
    over: bool,
    _body: Body,
}

impl Stream for Pieces {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while !self.over {
            match ready!(self.pieces.poll_recv(context)) {
                Some(ResultPiece::Bytes(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                Some(ResultPiece::Begins { .. }) => {}
                Some(ResultPiece::Ends) => self.over = true,
                None => {
                    self.over = true;
                    return Poll::Ready(Some(Err(std::io::Error::other("the call has failed amid its answer"))));
                }
            }
        }
        Poll::Ready(None)
    }
}
