//! Output of an execution as server-sent events, for browsers and whoever follows live.
//!
//! Below it is the same reading by offset as everywhere: the id of each event says how far both streams are, so that a reader
//! that comes back with `Last-Event-ID` misses nothing and gets nothing twice, whichever server answers. The stream ends with
//! `end`; a reader that comes back after that gets 204, which tells an `EventSource` to stop.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use hyper::header::{CACHE_CONTROL, HeaderName, HeaderValue};
use runlet_core::engine::{LogPiece, LogRead, Stream};
use runlet_core::id::ExecutionId;
use serde_json::json;
use warp::Reply as _;
use warp::reply::Response;
use warp::sse::Event;

use super::errors::ApiError;
use super::input::Input;
use crate::http::reply;

/// Longest silence: then a comment is sent, so that nobody between takes the connection for dead.
const SILENCE: Duration = Duration::from_secs(10);
/// Between two looks at the second stream while the first one is waited for.
const LOOK: Duration = Duration::from_millis(200);
/// Most output of one event.
const PIECE: usize = 64 << 10;
/// Id of the last event.
const END: &str = "end";

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How far a reader is in each stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    stdout: u64,
    stderr: u64,
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        let (stdout, stderr) = text.split_once('.')?;
        let read = |text: &str| text.parse().ok().filter(|offset: &u64| i64::try_from(*offset).is_ok());
        Some(Self { stdout: read(stdout)?, stderr: read(stderr)? })
    }

    fn of(&mut self, stream: Stream) -> &mut u64 {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.stdout, self.stderr)
    }
}

/// One reader of one execution.
struct Reader {
    input: Input,
    execution: ExecutionId,
    streams: &'static [Stream],
    place: Place,
    ended: bool,
}

/// Answers with the output from where the reader was, to the end of the execution.
pub(super) async fn follow(
    input: Input,
    execution: ExecutionId,
    only: Option<Stream>,
    offset: u64,
) -> Result<Response, ApiError> {
    let place = match input.header(LAST_EVENT_ID) {
        None => Place { stdout: offset, stderr: if only.is_some() { offset } else { 0 } },
        Some(END) => return Ok(reply::empty(hyper::StatusCode::NO_CONTENT)),
        Some(text) => Place::parse(text).ok_or_else(|| {
            ApiError::invalid("header Last-Event-ID: send the id of an event of this stream back, or leave it out")
        })?,
    };
    let streams: &'static [Stream] = match only {
        None => &[Stream::Stdout, Stream::Stderr],
        Some(Stream::Stdout) => &[Stream::Stdout],
        Some(Stream::Stderr) => &[Stream::Stderr],
    };
    // Asked before the answer begins: an unknown execution is a problem document and no stream.
    if input.api.store.execution(input.namespace(), execution).await?.is_none() {
        return Err(ApiError::not_found("execution", execution));
    }
    let reader = Reader { input, execution, streams, place, ended: false };
    let events = stream::unfold(reader, |mut reader| async move {
        let event = reader.next().await?;
        Some((Ok::<_, Infallible>(event), reader))
    });
    let mut response = warp::sse::reply(Exclusive(Mutex::new(events.boxed()))).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that collect answers before they pass them on are asked not to.
    response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

impl Reader {
    /// The next event; `None` where the answer ends: after `end`, when the server stops, and when the database is away.
    async fn next(&mut self) -> Option<Event> {
        if self.ended {
            return None;
        }
        let begin = tokio::time::Instant::now();
        loop {
            let mut ends = 0;
            for (nth, stream) in self.streams.iter().enumerate() {
                // The last one is waited for a little; nobody waits for one stream while the other has something.
                let patience = if nth + 1 == self.streams.len() { LOOK } else { Duration::ZERO };
                let piece = self.read(*stream, patience).await?;
                if !piece.bytes.is_empty() {
                    return Some(self.output(*stream, &piece));
                }
                ends += usize::from(piece.end);
            }
            if ends == self.streams.len() {
                self.ended = true;
                return self.end().await;
            }
            if begin.elapsed() >= SILENCE {
                return Some(Event::default().comment("still running"));
            }
        }
    }

    async fn read(&mut self, stream: Stream, patience: Duration) -> Option<LogPiece> {
        let offset = *self.place.of(stream);
        let read = LogRead { execution: self.execution, stream, offset, limit: PIECE, patience };
        let piece = self.input.api.engine.logs(self.input.namespace(), read);
        tokio::select! {
            piece = piece => piece.ok(),
            () = self.input.api.stopping.cancelled() => None,
        }
    }

    /// The event of a piece, cut so that no character is torn where that can be helped.
    fn output(&mut self, stream: Stream, piece: &LogPiece) -> Event {
        let bytes = whole_characters(&piece.bytes, piece.end);
        let offset = *self.place.of(stream);
        *self.place.of(stream) += bytes.len() as u64;
        let data = match std::str::from_utf8(&bytes) {
            Ok(text) => json!({ "offset": offset, "text": text }),
            Err(_) => json!({ "offset": offset, "base64": STANDARD.encode(&bytes) }),
        };
        Event::default().event(stream.as_str()).id(self.place.to_string()).data(data.to_string())
    }

    async fn end(&self) -> Option<Event> {
        let found = self.input.api.store.execution(self.input.namespace(), self.execution).await.ok()??;
        let data = json!({ "state": found.state, "outcome": found.outcome, "log_dropped": found.log_dropped });
        Some(Event::default().event(END).id(END).data(data.to_string()))
    }
}

/// The bytes without a character at their end that is not there as a whole yet.
fn whole_characters(bytes: &Bytes, end: bool) -> Bytes {
    match std::str::from_utf8(bytes) {
        // `error_len` is `None` where the text breaks off, and not where it is wrong.
        Err(error) if !end && error.error_len().is_none() && error.valid_up_to() > 0 => {
            bytes.slice(..error.valid_up_to())
        }
        _ => bytes.clone(),
    }
}

/// Makes a stream `Sync` for hyper's sake: it is polled by one task at a time, so that the lock is never taken.
struct Exclusive<S>(Mutex<S>);

impl<S: stream::Stream + Unpin> stream::Stream for Exclusive<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).poll_next_unpin(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_are_written() {
        let place = Place { stdout: 12, stderr: 0 };
        assert_eq!(Place::parse(&place.to_string()), Some(place));
        for bad in ["", "1", "1.", ".1", "1.x", "-1.0", "1.18446744073709551615", "end.0"] {
            assert_eq!(Place::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_character_is_torn_only_where_nothing_else_can_be_sent() {
        let cut = |bytes: &'static [u8], end| whole_characters(&Bytes::from_static(bytes), end);
        assert_eq!(cut(b"a\xc3", false), "a".as_bytes());
        assert_eq!(cut(b"a\xc3", true), b"a\xc3"[..]);
        assert_eq!(cut(b"\xc3", false), b"\xc3"[..]);
        assert_eq!(cut(b"a\xffb", false), b"a\xffb"[..]);
        assert_eq!(cut("aé".as_bytes(), false), "aé".as_bytes());
    }
}
