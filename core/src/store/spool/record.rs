//! One record of the spool and its bytes.
//!
//! ```text
//! u32 length of what follows the checksum | u32 CRC-32 of it | u8 kind | u32 length of head | head: JSON | body: bytes
//! ```
//! Numbers are little-endian. The checksum tells a record that was cut off by the death of the server from a whole one.

use std::borrow::Cow;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cause::Cause;
use crate::clock::Timestamp;
use crate::engine::{NewInvocation, Stream};
use crate::execution::{Remains, StartKind, Usage};
use crate::id::{ExecutionId, InvocationId};
use crate::manifest::Reset;
use crate::name::{FunctionName, Namespace, RevisionDigest};
use crate::outcome::Outcome;
use crate::store::ledger::{CallStart, Finish, Running};
use crate::store::log::Chunk;

/// Length and checksum.
const FRAME: usize = 8;
/// Kind and length of the head.
const INTRO: usize = 5;

const START: u8 = 1;
const OUTPUT: u8 = 2;
const END: u8 = 3;

/// An encoded record.
#[derive(Debug)]
pub(super) struct Record(Bytes);

impl Record {
    pub(super) const fn bytes(&self) -> &Bytes {
        &self.0
    }

    fn new<H: Serialize>(kind: u8, head: &H, body: &[u8]) -> Self {
        let head = serde_json::to_vec(head).expect("the nouns have text keys and no fallible parts");
        let length = INTRO + head.len() + body.len();
        let mut out = BytesMut::with_capacity(FRAME + length);
        out.put_u32_le(u32::try_from(length).expect("bodies are bounded far below 4 GiB"));
        out.put_u32_le(0);
        out.put_u8(kind);
        out.put_u32_le(u32::try_from(head.len()).expect("heads are small"));
        out.put_slice(&head);
        out.put_slice(body);
        let sum = crc32fast::hash(&out[FRAME..]);
        out[4..FRAME].copy_from_slice(&sum.to_le_bytes());
        Self(out.freeze())
    }
}

/// What a record says.
#[derive(Debug, Clone)]
pub(super) enum Said {
    Start(CallStart),
    Output(Namespace, Chunk),
    End(Finish),
}

#[derive(Serialize, Deserialize)]
struct StartHead<'a> {
    invocation: InvocationId,
    execution: ExecutionId,
    namespace: Cow<'a, Namespace>,
    function: Cow<'a, FunctionName>,
    revision: Cow<'a, RevisionDigest>,
    reset: Reset,
    cause: Cow<'a, Cause>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deadline: Option<Timestamp>,
    at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct OutputHead<'a> {
    namespace: Cow<'a, Namespace>,
    execution: ExecutionId,
    stream: Stream,
    offset: u64,
}

#[derive(Serialize, Deserialize)]
struct EndHead<'a> {
    invocation: InvocationId,
    namespace: Cow<'a, Namespace>,
    execution: ExecutionId,
    outcome: Cow<'a, Outcome>,
    /// Of the body; without one there is no result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result_type: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    running: Option<RunningHead<'a>>,
    usage: Usage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    remains: Option<Cow<'a, Remains>>,
    log_bytes: u64,
    log_dropped: u64,
    at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct RunningHead<'a> {
    start: StartKind,
    sandbox: Cow<'a, str>,
    at: Timestamp,
}

pub(super) fn start(start: &CallStart) -> Record {
    let CallStart { invocation, execution, call, revision, reset, at } = start;
    let head = StartHead {
        invocation: *invocation,
        execution: *execution,
        namespace: Cow::Borrowed(&call.namespace),
        function: Cow::Borrowed(&call.function),
        revision: Cow::Borrowed(revision),
        reset: *reset,
        cause: Cow::Borrowed(&call.cause),
        content_type: call.content_type.as_deref().map(Cow::Borrowed),
        deadline: call.deadline,
        at: *at,
    };
    Record::new(START, &head, &call.payload)
}

pub(super) fn output(namespace: &Namespace, chunk: &Chunk) -> Record {
    let Chunk { execution, stream, offset, bytes } = chunk;
    let head =
        OutputHead { namespace: Cow::Borrowed(namespace), execution: *execution, stream: *stream, offset: *offset };
    Record::new(OUTPUT, &head, bytes)
}

pub(super) fn end(finish: &Finish) -> Record {
    let running = finish.running.as_ref();
    let head = EndHead {
        invocation: finish.invocation,
        namespace: Cow::Borrowed(&finish.namespace),
        execution: finish.execution,
        outcome: Cow::Borrowed(&finish.outcome),
        result_type: finish.result.as_ref().map(|(_, kind)| Cow::Borrowed(&**kind)),
        running: running.map(|running| RunningHead {
            start: running.start,
            sandbox: Cow::Borrowed(&running.sandbox),
            at: running.at,
        }),
        usage: finish.usage,
        remains: finish.remains.as_ref().map(Cow::Borrowed),
        log_bytes: finish.log_bytes,
        log_dropped: finish.log_dropped,
        at: finish.at,
    };
    Record::new(END, &head, finish.result.as_ref().map_or(&[], |(body, _)| body))
}

/// The bytes of the first record of `bytes`, header included; `None` where there is no whole and sound one.
pub(super) fn length(bytes: &[u8]) -> Option<usize> {
    let length = announced(bytes)?;
    let sum = u32::from_le_bytes(bytes.get(4..FRAME)?.try_into().ok()?);
    let content = bytes.get(FRAME..length)?;
    (crc32fast::hash(content) == sum).then_some(length)
}

/// The bytes of the first record of `bytes` as its header says, whether they are all there or not.
pub(super) fn announced(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
    usize::try_from(length).ok()?.checked_add(FRAME)
}

/// What a whole and sound record says.
///
/// # Errors
/// What is wrong with it: it was written by another version, or not by runlet.
pub(super) fn read(record: &Bytes) -> Result<Said, String> {
    let wrong = || "it is too short".to_owned();
    let kind = *record.get(FRAME).ok_or_else(wrong)?;
    let head = record.get(FRAME + 1..FRAME + INTRO).and_then(|bytes| bytes.try_into().ok()).ok_or_else(wrong)?;
    let end = usize::try_from(u32::from_le_bytes(head)).ok().and_then(|head| head.checked_add(FRAME + INTRO));
    let end = end.filter(|end| *end <= record.len()).ok_or_else(wrong)?;
    let (head, body) = (&record[FRAME + INTRO..end], record.slice(end..));
    match kind {
        START => parse(head).map(|head| read_start(head, body)),
        OUTPUT => parse(head).map(|head: OutputHead<'_>| {
            let OutputHead { namespace, execution, stream, offset } = head;
            Said::Output(namespace.into_owned(), Chunk { execution, stream, offset, bytes: body })
        }),
        END => parse(head).map(|head| read_end(head, body)),
        other => Err(format!("its kind {other} is not known")),
    }
}

fn parse<T: DeserializeOwned>(head: &[u8]) -> Result<T, String> {
    serde_json::from_slice(head).map_err(|error| error.to_string())
}

fn read_start(head: StartHead<'_>, payload: Bytes) -> Said {
    Said::Start(CallStart {
        invocation: head.invocation,
        execution: head.execution,
        revision: head.revision.into_owned(),
        reset: head.reset,
        at: head.at,
        call: NewInvocation {
            namespace: head.namespace.into_owned(),
            function: head.function.into_owned(),
            revision: None,
            cause: head.cause.into_owned(),
            payload,
            content_type: head.content_type.map(Cow::into_owned),
            dedup: None,
            priority: 0,
            not_before: None,
            deadline: head.deadline,
        },
    })
}

fn read_end(head: EndHead<'_>, body: Bytes) -> Said {
    let execution = head.execution;
    Said::End(Finish {
        execution,
        invocation: head.invocation,
        namespace: head.namespace.into_owned(),
        fence: None,
        outcome: head.outcome.into_owned(),
        result: head.result_type.map(|kind| (body, Cow::Owned(kind.into_owned()))),
        running: head.running.map(|running| Running {
            execution,
            start: running.start,
            sandbox: running.sandbox.into_owned(),
            at: running.at,
        }),
        usage: head.usage,
        remains: head.remains.map(Cow::into_owned),
        log_bytes: head.log_bytes,
        log_dropped: head.log_dropped,
        retry: None,
        expired: false,
        of_messages: false,
        tell: None,
        at: head.at,
    })
}
