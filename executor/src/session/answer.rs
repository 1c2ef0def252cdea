//! What a runner may answer to a call, frame by frame, and every way to break the rules.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use runlet_core::outcome::{ErrorDetail, Outcome, OutcomeKind};
use runlet_core::unit::ByteSize;
use runlet_runtimes::frame::{Frame, FrameError, Kind};
use serde::Deserialize;

use super::{Spout, content_type};

/// Lines of a traceback that are kept.
const TRACE_LINES: usize = 200;

/// How a runner broke the protocol.
#[derive(Debug, thiserror::Error)]
pub(super) enum Breach {
    #[error("the runner sent {0}")]
    Frame(#[from] FrameError),
    #[error("the runner sent a {got:?} frame where {expected} was due")]
    Unexpected { got: Kind, expected: &'static str },
    #[error("the runner sent a frame of call {got} during call {expected}")]
    ForeignCall { got: u64, expected: u64 },
    #[error("the runner sent a frame of call {0}, which does not run")]
    NoSuchCall(u64),
    #[error("the runner sent a log frame of stream {0:?}, where 1 is stdout and 2 is stderr")]
    Stream(Option<u8>),
    #[error("the runner sent bytes behind the end of its answer")]
    AfterEnd,
    #[error("the runner sent a {kind:?} frame whose body is not as it should be: {reason}")]
    Body { kind: Kind, reason: serde_json::Error },
    #[error("the runner speaks the versions {0:?} of the protocol, this server only version 1")]
    Version(Vec<u64>),
    #[error("the runner closed fd 3 but did not end")]
    Closed,
    #[error("the result is larger than {}: store it elsewhere and return where it is", ByteSize(*.0 as u64))]
    TooLarge(usize),
    #[error("the {0} is larger than 1 MiB, the most that fits into one frame")]
    OwnFrame(&'static str),
}

impl Breach {
    pub(super) fn outcome(&self) -> Outcome {
        Outcome::because(OutcomeKind::RuntimeError, self.to_string())
    }
}

/// What the code answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answered {
    Result {
        body: Bytes,
        content_type: &'static str,
    },
    /// `fatal`: the process says that it is not fit for another call.
    Error {
        detail: ErrorDetail,
        fatal: bool,
    },
}

impl Answered {
    /// Whether the process is not fit for another call.
    pub(super) const fn is_fatal(&self) -> bool {
        matches!(self, Self::Error { fatal: true, .. })
    }
}

/// An answer on its way.
#[derive(Debug)]
pub(super) struct Answer {
    call: u64,
    max: usize,
    begun: Option<Begun>,
    body: BytesMut,
}

/// A result that has begun.
#[derive(Debug, Clone, Copy)]
struct Begun {
    content_type: &'static str,
    /// Whether it is handed on as it comes. Such a one may still end as an error.
    in_pieces: bool,
}

#[derive(Deserialize)]
struct ResultHead<'a> {
    #[serde(borrow, default)]
    content_type: Option<Cow<'a, str>>,
    #[serde(default)]
    stream: bool,
}

#[derive(Deserialize)]
struct ErrorTail {
    #[serde(default)]
    fatal: bool,
}

impl Answer {
    /// The answer to `call`, whose result has at most `max` bytes.
    pub(super) fn new(call: u64, max: usize) -> Self {
        Self { call, max, begun: None, body: BytesMut::new() }
    }

    /// Takes the next frame; `Some` once the answer is complete. A result that comes in pieces goes to `spout` besides.
    pub(super) fn hear(&mut self, frame: Frame, spout: &mut Spout) -> Result<Option<Answered>, Breach> {
        if frame.call != self.call {
            return Err(Breach::ForeignCall { got: frame.call, expected: self.call });
        }
        match (frame.kind, self.begun) {
            (Kind::Error, None | Some(Begun { in_pieces: true, .. })) if frame.end => {
                Ok(Some(Answered::Error { detail: error_detail(&frame)?, fatal: is_fatal(&frame) }))
            }
            (Kind::Result, None) => {
                let head: ResultHead<'_> = json(&frame)?;
                let content_type = known_type(head.content_type.as_deref());
                self.begun = Some(Begun { content_type, in_pieces: head.stream });
                if head.stream {
                    spout.begin(content_type);
                }
                Ok(frame.end.then_some(Answered::Result { body: Bytes::new(), content_type }))
            }
            (Kind::Data, Some(begun)) => self.hear_data(frame, begun, spout),
            (got, None) => Err(Breach::Unexpected { got, expected: "a result or an error" }),
            (got, Some(_)) => Err(Breach::Unexpected { got, expected: "the rest of the result" }),
        }
    }

    fn hear_data(&mut self, frame: Frame, begun: Begun, spout: &mut Spout) -> Result<Option<Answered>, Breach> {
        let Begun { content_type, in_pieces } = begun;
        if self.body.len() + frame.body.len() > self.max {
            return Err(Breach::TooLarge(self.max));
        }
        if frame.end && self.body.is_empty() && !in_pieces {
            return Ok(Some(Answered::Result { body: frame.body, content_type }));
        }
        self.body.extend_from_slice(&frame.body);
        if in_pieces {
            spout.give(frame.body);
        }
        Ok(frame.end.then(|| Answered::Result { body: self.body.split().freeze(), content_type }))
    }
}

/// Reads the JSON body of a frame.
pub(super) fn json<'a, T: Deserialize<'a>>(frame: &'a Frame) -> Result<T, Breach> {
    serde_json::from_slice(&frame.body).map_err(|reason| Breach::Body { kind: frame.kind, reason })
}

/// Reads the body of an error or init_error frame: what the code says about itself, made fit to be stored and shown.
pub(super) fn error_detail(frame: &Frame) -> Result<ErrorDetail, Breach> {
    let mut detail: ErrorDetail = json(frame)?;
    clean(&mut detail.kind, 256);
    clean(&mut detail.message, 16 * 1024);
    // The last lines of a traceback tell most.
    detail.trace.drain(..detail.trace.len().saturating_sub(TRACE_LINES));
    for line in &mut detail.trace {
        clean(line, 4 * 1024);
    }
    Ok(detail)
}

/// Whether an error frame says that the process is not fit for another call.
pub(super) fn is_fatal(frame: &Frame) -> bool {
    frame.kind == Kind::Error && json::<ErrorTail>(frame).is_ok_and(|tail| tail.fatal)
}

/// Shortens `text` to `max` bytes and replaces NUL, which Postgres does not take.
fn clean(text: &mut String, max: usize) {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
        text.push('…');
    }
    if text.contains('\0') {
        *text = text.replace('\0', "\u{fffd}");
    }
}

/// Results are JSON, lines of JSON, text or bytes; what else a runner calls its result is handed on as bytes.
fn known_type(text: Option<&str>) -> &'static str {
    match text {
        None | Some(content_type::JSON) => content_type::JSON,
        Some(content_type::LINES) => content_type::LINES,
        Some(content_type::TEXT | "text/plain") => content_type::TEXT,
        Some(_) => content_type::BYTES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: Kind, end: bool, call: u64, body: &'static str) -> Frame {
        Frame { kind, end, call, body: Bytes::from_static(body.as_bytes()) }
    }

    fn hear(frames: impl IntoIterator<Item = Frame>) -> Result<Option<Answered>, Breach> {
        let mut answer = Answer::new(3, 10);
        let mut heard = None;
        for frame in frames {
            assert_eq!(heard, None, "nothing is asked behind the end");
            heard = answer.hear(frame, &mut Spout::closed())?;
        }
        Ok(heard)
    }

    fn result(body: &'static str, content_type: &'static str) -> Option<Answered> {
        Some(Answered::Result { body: Bytes::from_static(body.as_bytes()), content_type })
    }

    #[test]
    fn results_come_in_any_number_of_frames() {
        let head = || frame(Kind::Result, false, 3, r#"{"content_type":"application/json"}"#);
        assert_eq!(hear([head(), frame(Kind::Data, true, 3, "[1]")]).unwrap(), result("[1]", content_type::JSON));
        let pieces = [
            head(),
            frame(Kind::Data, false, 3, "[1,"),
            frame(Kind::Data, false, 3, ""),
            frame(Kind::Data, true, 3, "2]"),
        ];
        assert_eq!(hear(pieces).unwrap(), result("[1,2]", content_type::JSON));
        assert_eq!(hear([frame(Kind::Result, true, 3, "{}")]).unwrap(), result("", content_type::JSON));
        let odd = frame(Kind::Result, true, 3, r#"{"content_type":"image/\u0070ng"}"#);
        assert_eq!(hear([odd]).unwrap(), result("", content_type::BYTES));
        assert_eq!(hear([head()]).unwrap(), None);
    }

    #[test]
    fn errors_are_read_and_made_fit_for_the_ledger() {
        let body = r#"{"type":"ValueError","message":"a\u0000b","trace":["one","two"]}"#;
        let Some(Answered::Error { detail, fatal: false }) = hear([frame(Kind::Error, true, 3, body)]).unwrap() else {
            panic!("no error")
        };
        assert_eq!(detail.message, "a\u{fffd}b");
        assert_eq!(detail.trace, ["one", "two"]);
        let mut long = "ä".repeat(100);
        clean(&mut long, 7);
        assert_eq!(long, "äää…");
    }

    #[test]
    fn a_result_in_pieces_may_end_as_an_error() {
        let head = || frame(Kind::Result, false, 3, r#"{"content_type":"application/x-ndjson","stream":true}"#);
        let piece = |end| frame(Kind::Data, end, 3, "1\n");
        assert_eq!(hear([head(), piece(false), piece(true)]).unwrap(), result("1\n1\n", content_type::LINES));
        let error = frame(Kind::Error, true, 3, r#"{"type":"E","message":"late","fatal":true}"#);
        let Some(Answered::Error { detail, fatal: true }) = hear([head(), piece(false), error]).unwrap() else {
            panic!("no error")
        };
        assert_eq!(detail.message, "late");
    }

    #[test]
    fn whatever_is_out_of_order_is_a_breach() {
        let head = || frame(Kind::Result, false, 3, "{}");
        let breach = |frames: Vec<Frame>| hear(frames).expect_err("it is hostile").to_string();
        let cases = [
            breach(vec![frame(Kind::Data, true, 3, "1")]),
            breach(vec![head(), head()]),
            breach(vec![head(), frame(Kind::Error, true, 3, "{}")]),
            breach(vec![frame(Kind::Error, false, 3, "{}")]),
            breach(vec![frame(Kind::Ready, false, 3, "{}")]),
            breach(vec![frame(Kind::Log, false, 3, "{}")]),
            breach(vec![frame(Kind::Result, true, 4, "{}")]),
            breach(vec![head(), frame(Kind::Data, true, 2, "1")]),
            breach(vec![frame(Kind::Result, true, 3, "[")]),
            breach(vec![frame(Kind::Error, true, 3, r#"{"type":1}"#)]),
            breach(vec![head(), frame(Kind::Data, false, 3, "12345678"), frame(Kind::Data, false, 3, "9AB")]),
        ];
        for (case, word) in cases.iter().zip([
            "a result or an error",
            "rest of the result",
            "rest of the result",
            "a result or an error",
            "a result or an error",
            "a result or an error",
            "call 4",
            "call 2",
            "Result frame whose body",
            "Error frame whose body",
            "larger than 10B",
        ]) {
            assert!(case.contains(word), "{case:?} does not say {word:?}");
        }
    }
}
