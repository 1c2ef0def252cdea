//! One record of the spool and its bytes.
//!
//! ```text
//! u32 length of what follows the checksum | u32 CRC-32 of it | u8 kind | u32 length of head | head: postcard | body: bytes
//! ```
//! Numbers are little-endian. Cause and outcome are JSON within the head. The checksum tells a record that was cut off by the death of the server from a whole one.

use std::borrow::Cow;

use bytes::Bytes;
use chrono::serde::{ts_microseconds, ts_microseconds_option};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::engine::{NewInvocation, Stream};
use crate::execution::{Remains, StartKind, Usage};
use crate::id::{ExecutionId, InvocationId};
use crate::manifest::Reset;
use crate::name::{FunctionName, Namespace, RevisionDigest};
use crate::store::ledger::{CallStart, Finish, Running};
use crate::store::log::Chunk;

/// Length and checksum.
const FRAME: usize = 8;
/// Kind and length of the head.
const INTRO: usize = 5;
/// Room for a usual head.
const USUAL: usize = 256;

const START: u8 = 1;
const OUTPUT: u8 = 2;
const END: u8 = 3;

/// An encoded record.
#[derive(Debug)]
pub(super) struct Record(Vec<u8>);

impl Record {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn new<H: Serialize>(kind: u8, head: &H, body: &[u8]) -> Self {
        let mut out = Vec::with_capacity(FRAME + INTRO + USUAL + body.len());
        out.resize(FRAME + INTRO, 0);
        let mut out = postcard::to_extend(head, out).expect("the nouns have no fallible parts");
        let head = u32::try_from(out.len() - FRAME - INTRO).expect("heads are small");
        out.extend_from_slice(body);
        let length = u32::try_from(out.len() - FRAME).expect("bodies are bounded far below 4 GiB");
        out[FRAME] = kind;
        out[FRAME + 1..FRAME + INTRO].copy_from_slice(&head.to_le_bytes());
        let sum = crc32fast::hash(&out[FRAME..]);
        out[..4].copy_from_slice(&length.to_le_bytes());
        out[4..FRAME].copy_from_slice(&sum.to_le_bytes());
        Self(out)
    }
}

/// What a record says.
#[derive(Debug, Clone)]
pub(super) enum Said {
    Start(CallStart),
    Output(Namespace, Chunk),
    End(Finish),
}

/// The order of the fields, and of the words of their enums, is the format.
#[derive(Serialize, Deserialize)]
struct StartHead<'a> {
    invocation: InvocationId,
    execution: ExecutionId,
    namespace: Cow<'a, Namespace>,
    function: Cow<'a, FunctionName>,
    revision: Cow<'a, RevisionDigest>,
    reset: Reset,
    /// JSON.
    #[serde(borrow)]
    cause: Cow<'a, str>,
    content_type: Option<Cow<'a, str>>,
    #[serde(with = "ts_microseconds_option")]
    deadline: Option<Timestamp>,
    #[serde(with = "ts_microseconds")]
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
    /// JSON.
    #[serde(borrow)]
    outcome: Cow<'a, str>,
    /// Of the body; without one there is no result.
    result_type: Option<Cow<'a, str>>,
    running: Option<RunningHead<'a>>,
    usage: UsageHead,
    remains: Option<Cow<'a, Remains>>,
    log_bytes: u64,
    log_dropped: u64,
    #[serde(with = "ts_microseconds")]
    at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct RunningHead<'a> {
    start: StartKind,
    sandbox: Cow<'a, str>,
    #[serde(with = "ts_microseconds")]
    at: Timestamp,
}

/// What `Usage` says. That noun leaves out what is not known, and postcard, which has no names, could not read it back.
#[derive(Serialize, Deserialize)]
struct UsageHead {
    wait_us: Option<i64>,
    start_us: Option<i64>,
    wall_us: Option<i64>,
    cpu_us: Option<i64>,
    memory_peak: Option<i64>,
}

fn json<'a>(noun: &impl Serialize) -> Cow<'a, str> {
    Cow::Owned(serde_json::to_string(noun).expect("the nouns have text keys and no fallible parts"))
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
        cause: json(&call.cause),
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
    let Usage { wait_us, start_us, wall_us, cpu_us, memory_peak } = finish.usage;
    let head = EndHead {
        invocation: finish.invocation,
        namespace: Cow::Borrowed(&finish.namespace),
        execution: finish.execution,
        outcome: json(&finish.outcome),
        result_type: finish.result.as_ref().map(|(_, kind)| Cow::Borrowed(&**kind)),
        running: running.map(|running| RunningHead {
            start: running.start,
            sandbox: Cow::Borrowed(&running.sandbox),
            at: running.at,
        }),
        usage: UsageHead { wait_us, start_us, wall_us, cpu_us, memory_peak },
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
        START => parse(head).and_then(|head| read_start(head, body)),
        OUTPUT => parse(head).map(|head| read_output(head, body)),
        END => parse(head).and_then(|head| read_end(head, body)),
        other => Err(format!("its kind {other} is not known")),
    }
}

fn parse<'a, T: Deserialize<'a>>(head: &'a [u8]) -> Result<T, String> {
    postcard::from_bytes(head).map_err(|error| error.to_string())
}

fn parse_json<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn read_start(head: StartHead<'_>, payload: Bytes) -> Result<Said, String> {
    Ok(Said::Start(CallStart {
        invocation: head.invocation,
        execution: head.execution,
        revision: head.revision.into_owned(),
        reset: head.reset,
        at: head.at,
        call: NewInvocation {
            namespace: head.namespace.into_owned(),
            function: head.function.into_owned(),
            revision: None,
            cause: parse_json(&head.cause)?,
            payload,
            content_type: head.content_type.map(Cow::into_owned),
            dedup: None,
            priority: 0,
            not_before: None,
            deadline: head.deadline,
        },
    }))
}

fn read_output(head: OutputHead<'_>, bytes: Bytes) -> Said {
    let OutputHead { namespace, execution, stream, offset } = head;
    Said::Output(namespace.into_owned(), Chunk { execution, stream, offset, bytes })
}

fn read_end(head: EndHead<'_>, body: Bytes) -> Result<Said, String> {
    let execution = head.execution;
    let UsageHead { wait_us, start_us, wall_us, cpu_us, memory_peak } = head.usage;
    Ok(Said::End(Finish {
        execution,
        invocation: head.invocation,
        namespace: head.namespace.into_owned(),
        fence: None,
        outcome: parse_json(&head.outcome)?,
        result: head.result_type.map(|kind| (body, Cow::Owned(kind.into_owned()))),
        running: head.running.map(|running| Running {
            execution,
            start: running.start,
            sandbox: running.sandbox.into_owned(),
            at: running.at,
        }),
        usage: Usage { wait_us, start_us, wall_us, cpu_us, memory_peak },
        remains: head.remains.map(Cow::into_owned),
        log_bytes: head.log_bytes,
        log_dropped: head.log_dropped,
        retry: None,
        expired: false,
        of_messages: false,
        tell: None,
        at: head.at,
    }))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;
    use crate::outcome::Outcome;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// A file of this version is read by the next one: whoever changes these bytes changes [`MAGIC`](super::super::segment), too.
    #[test]
    fn the_bytes_of_a_record_stay_as_they_are() {
        let at = DateTime::from_timestamp_micros(1_800_000_000_000_001).unwrap();
        let finish = Finish {
            execution: ExecutionId::from(Uuid::from_u128(0xe)),
            invocation: InvocationId::from(Uuid::from_u128(0x1)),
            namespace: Namespace::default_namespace(),
            fence: None,
            outcome: Outcome::ok(),
            result: Some((Bytes::from_static(b"[1]"), "application/json".into())),
            running: Some(Running {
                execution: ExecutionId::from(Uuid::from_u128(0xe)),
                start: StartKind::Warm,
                sandbox: "py-1".to_owned(),
                at,
            }),
            usage: Usage { cpu_us: Some(-1), ..Usage::default() },
            remains: Some(Remains { mounts: 300, ..Remains::default() }),
            log_bytes: 0,
            log_dropped: 5,
            retry: None,
            expired: false,
            of_messages: false,
            tell: None,
            at,
        };
        let record = end(&finish);
        insta::assert_snapshot!(hex(record.bytes()), @"7500000012cf5697036d000000000000000000000000000000000000010764656661756c740000000000000000000000000000000e0d7b226b696e64223a226f6b227d01106170706c69636174696f6e2f6a736f6e01030470792d318280c489e5c5b206000000010100010000ac020000058280c489e5c5b2065b315d");
        let bytes = Bytes::copy_from_slice(record.bytes());
        assert_eq!(length(&bytes), Some(bytes.len()));
        let Ok(Said::End(read)) = read(&bytes) else { panic!("it is an end") };
        assert_eq!(format!("{read:?}"), format!("{finish:?}"));
    }
}
