//! A command in a leased sandbox: frames in, frames out, both at the same time, over the bodies of one request.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, Stream};
use hyper::header::HeaderValue;
use runlet_core::engine::{Command, Exec, ExecEvent, ExecInput, Stream as Output};
use runlet_core::problem::Problem;
use tokio::sync::mpsc;
use tokio::time::timeout;
use warp::Reply as _;
use warp::reply::Response;

use super::errors::ApiError;
use super::input::Input;
use super::leases::{find, json};
use super::shapes::Octets;
use crate::frames::{Decoder, End, Kind, LARGEST_START, MEDIA_TYPE, Start, Started, encode};
use crate::http::body::BodyStream;

/// How long a client may take to say what it wants to run.
const FIRST: Duration = Duration::from_secs(30);

/// How long a client may go on talking after the end.
const LAST: Duration = Duration::from_secs(5);

/// Run a command in a leased sandbox
///
/// Request and answer are frames, streamed at the same time: see the guide to `runlet exec`. A client that goes away cancels.
#[utoipa::path(
    post,
    path = "/v1/leases/{id}/exec",
    tag = "leases",
    params(("id" = String, Path, description = "Id of the lease, or its key")),
    request_body(content = Octets, content_type = "application/vnd.runlet.exec"),
    responses(
        (status = 200, description = "Output as it comes, and the end", body = Octets, content_type = "application/vnd.runlet.exec"),
        (status = 404, description = "There is no such lease", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The lease is ending", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn exec(reference: String, mut input: Input) -> Result<Response, ApiError> {
    input.query(&[])?;
    let lease = find(&input, &reference)?;
    let mut client = Client { stream: input.stream(), decoder: Decoder::default() };
    let start = timeout(FIRST, client.start()).await;
    let start = start.unwrap_or_else(|_| Err(ApiError::invalid("the first frame did not come in time")))?;
    let Start { argv, env, cwd, step, decides, stdin, files } = start;
    let step = step.or_else(|| argv.first().map(|program| short(program)));
    let command = Command { argv, env, cwd, step, decides, stdin, files };
    let exec = input.api.engine.exec(input.namespace(), lease.id, command).await?;
    let Exec { execution, invocation, events, input: told, taken } = exec;
    input.api.streams.spawn(client.tell(told));
    let first = frame(Kind::Started, &Started { execution, invocation });
    let rest = Rest { events, taken, ended: false };
    let body = stream::once(async move { Ok(first) }).chain(rest.frames());
    let mut response = warp::reply::stream(body).into_response();
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    Ok(response)
}

/// The last part of a program's path.
fn short(program: &str) -> String {
    program.rsplit('/').next().unwrap_or(program).to_owned()
}

fn frame(kind: Kind, body: &impl serde::Serialize) -> Bytes {
    encode(kind, &serde_json::to_vec(body).unwrap_or_default())
}

/// What the client says.
struct Client {
    stream: BodyStream,
    decoder: Decoder,
}

impl Client {
    /// The first frame.
    async fn start(&mut self) -> Result<Start, ApiError> {
        let wrong = |what: &str| ApiError::invalid(format!("the body does not begin with a start frame: {what}"));
        loop {
            match self.decoder.next() {
                Ok(Some((Kind::Start, body))) if body.len() <= LARGEST_START => return json(&body),
                Ok(Some(_)) => return Err(wrong("it is another one")),
                Ok(None) => {}
                Err(error) => return Err(wrong(&error.to_string())),
            }
            match self.stream.next().await {
                Some(Ok(bytes)) => self.decoder.push(&bytes),
                _ => return Err(wrong("it ended before")),
            }
        }
    }

    /// Hands on what the client says until it or the command has ended. When this returns the command is told that nobody
    /// is there any more.
    async fn tell(mut self, told: mpsc::Sender<ExecInput>) {
        loop {
            let frame = match self.decoder.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => {
                    tokio::select! {
                        bytes = self.stream.next() => match bytes {
                            Some(Ok(bytes)) => self.decoder.push(&bytes),
                            _ => return,
                        },
                        () = told.closed() => break,
                    }
                    continue;
                }
                Err(_) => return,
            };
            let input = match frame {
                (Kind::Stdin, bytes) => ExecInput::Stdin(bytes),
                (Kind::StdinEnd, _) => ExecInput::End,
                (Kind::Signal, bytes) => match bytes.first() {
                    Some(number @ 1..=64) => ExecInput::Signal(i32::from(*number)),
                    _ => return,
                },
                (Kind::Cancel, _) => ExecInput::Cancel,
                _ => return,
            };
            if told.send(input).await.is_err() {
                break;
            }
        }
        // A connection that is closed with something unread takes the end of the answer with it.
        let _ = timeout(LAST, async { while let Some(Ok(_)) = self.stream.next().await {} }).await;
    }
}

/// What is still to be said to the client.
struct Rest {
    events: mpsc::Receiver<ExecEvent>,
    taken: tokio::sync::watch::Receiver<u64>,
    ended: bool,
}

impl Rest {
    fn frames(self) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send + Sync {
        stream::unfold(self, |mut rest| async move {
            let frame = rest.next().await?;
            Some((frame, rest))
        })
    }

    async fn next(&mut self) -> Option<Result<Bytes, std::io::Error>> {
        if self.ended {
            return None;
        }
        tokio::select! {
            biased;
            event = self.events.recv() => Some(Ok(match event {
                Some(ExecEvent::Output(Output::Stdout, bytes)) => encode(Kind::Stdout, &bytes),
                Some(ExecEvent::Output(Output::Stderr, bytes)) => encode(Kind::Stderr, &bytes),
                Some(ExecEvent::Exited { outcome, log_dropped }) => {
                    self.ended = true;
                    frame(Kind::End, &End { outcome, log_dropped })
                }
                // Without an end: the client must not take this for one.
                None => return Some(Err(std::io::Error::other("the command was cut off by a fault"))),
            })),
            Ok(()) = self.taken.changed() => {
                let taken = *self.taken.borrow_and_update();
                Some(Ok(encode(Kind::Taken, &taken.to_le_bytes())))
            }
        }
    }
}
