//! A request whose body and answer are streams at the same time.
//!
//! The connection lives as long as whoever takes the answer does; what is dropped then is the connection itself.

use std::convert::Infallible;
use std::pin::pin;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::patient::Patient;
use super::{ANSWER_MAX, Answer, Broken, Call, Client, ClientError};

/// How a streamed exchange went.
#[derive(Debug)]
pub(crate) enum Exchanged<T> {
    /// The server took the request; what came of it.
    Taken(T),
    /// It did not: its whole answer.
    Refused(Answer),
}

impl Client {
    /// Sends what comes out of `body`, and hands a successful answer to `take` while the body still goes out.
    ///
    /// # Errors
    /// No connection, or it broke before there was an answer.
    pub(crate) async fn stream<T>(
        &self,
        call: Call,
        body: mpsc::Receiver<Bytes>,
        take: impl AsyncFnOnce(Incoming) -> T,
    ) -> Result<Exchanged<T>, ClientError> {
        let pieces = stream::unfold(body, |mut body| async move {
            let piece = body.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(piece)), body))
        });
        let request = self.request(call)?.map(|_| StreamBody::new(pieces).boxed_unsync());
        let exchanged = drive(self.connect().await?, request, take).await;
        exchanged.map_err(|source| ClientError::Broken { host: self.host().clone(), sent: 0, source })
    }
}

type Request = hyper::Request<UnsyncBoxBody<Bytes, Infallible>>;

async fn drive<S, T>(stream: S, request: Request, take: impl AsyncFnOnce(Incoming) -> T) -> Result<Exchanged<T>, Broken>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(Patient::new(stream))).await?;
    let exchange = async move {
        let answer: Response<Incoming> = sender.send_request(request).await?;
        if answer.status() == StatusCode::OK {
            return Ok(Exchanged::Taken(take(answer.into_body()).await));
        }
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await?.to_bytes();
        Ok(Exchanged::Refused(Answer { status: parts.status, headers: parts.headers, body }))
    };
    let (mut connection, mut exchange) = (pin!(connection), pin!(exchange));
    tokio::select! {
        result = &mut exchange => result,
        // What has arrived by then is still to be read.
        closed = &mut connection => match (exchange.await, closed) {
            (Err(_), Err(why)) => Err(why.into()),
            (result, _) => result,
        },
    }
}
