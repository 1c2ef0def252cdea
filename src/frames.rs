//! Frames of a command in a leased sandbox: what client and server say to each other over the bodies of one request.
//!
//! `u8 kind | u32 length, little-endian | bytes`. Both bodies are streamed at the same time; docs/guide/exec.md has the table.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// Media type of both bodies.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.runlet.exec";

/// Bytes before the body of a frame.
const HEADER: usize = 5;

/// Largest body of the first frame: it may carry a script.
pub(crate) const LARGEST_START: usize = 4 << 20;

/// Largest body of any other frame.
pub(crate) const LARGEST: usize = 1 << 20;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Client: what to run, as JSON; first and once.
    Start = 0x01,
    /// Client: bytes for stdin.
    Stdin = 0x02,
    /// Client: stdin ends.
    StdinEnd = 0x03,
    /// Client: the number of a signal, one byte.
    Signal = 0x04,
    /// Client: end it.
    Cancel = 0x05,
    /// Server: it is on record, under these ids (JSON).
    Started = 0x11,
    /// Server: bytes of stdout.
    Stdout = 0x12,
    /// Server: bytes of stderr.
    Stderr = 0x13,
    /// Server: how it ended, as JSON; the last one.
    End = 0x14,
    /// Server: how many bytes of stdin it has taken so far, eight bytes.
    Taken = 0x15,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Start,
        Self::Stdin,
        Self::StdinEnd,
        Self::Signal,
        Self::Cancel,
        Self::Started,
        Self::Stdout,
        Self::Stderr,
        Self::End,
        Self::Taken,
    ];
}

/// What is no frame.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// The kind does not exist.
    #[error("{0:#04x} is no kind of frame")]
    Kind(u8),
    /// It is too long.
    #[error("a frame of {0} bytes is larger than allowed")]
    TooLarge(usize),
}

/// A frame as bytes.
pub(crate) fn encode(kind: Kind, body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEADER + body.len());
    bytes.put_u8(kind as u8);
    bytes.put_u32_le(u32::try_from(body.len()).unwrap_or(u32::MAX));
    bytes.put_slice(body);
    bytes.freeze()
}

/// Takes frames from a stream of bytes.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Takes bytes in.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// [`FrameError`]: the stream cannot be read on.
    pub(crate) fn next(&mut self) -> Result<Option<(Kind, Bytes)>, FrameError> {
        let Some((&kind, rest)) = self.buffer.split_first() else { return Ok(None) };
        let kind = Kind::ALL.into_iter().find(|known| *known as u8 == kind).ok_or(FrameError::Kind(kind))?;
        let Some(length) = rest.first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length > if kind == Kind::Start { LARGEST_START } else { LARGEST } {
            return Err(FrameError::TooLarge(length));
        }
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        Ok(Some((kind, self.buffer.split_to(length).freeze())))
    }
}

/// The body of [`Kind::Start`].
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Start {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Variables on top of those that the sandbox has.
    #[serde(default)]
    pub env: std::collections::BTreeMap<String, String>,
    /// Working directory.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Name of the step, for the record.
    #[serde(default)]
    pub step: Option<String>,
    /// Whether its outcome counts for that of the lease.
    #[serde(default = "yes")]
    pub decides: bool,
    /// Whether it gets a stdin.
    #[serde(default)]
    pub stdin: bool,
    /// Text files to write before it starts.
    #[serde(default)]
    pub files: Vec<(String, String)>,
}

const fn yes() -> bool {
    true
}

/// The body of [`Kind::Started`].
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Started {
    /// What it is on record as.
    pub execution: runlet_core::id::ExecutionId,
    /// The invocation of its lease.
    pub invocation: runlet_core::id::InvocationId,
}

/// The body of [`Kind::End`].
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct End {
    /// How it ended.
    pub outcome: runlet_core::outcome::Outcome,
    /// Bytes of output that are not on record.
    pub log_dropped: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let all: Vec<u8> =
            [encode(Kind::Stdout, b"abc"), encode(Kind::StdinEnd, b""), encode(Kind::Stderr, &[7; 300])].concat();
        for cut in 1..all.len() {
            let mut decoder = Decoder::default();
            let mut found = Vec::new();
            for piece in all.chunks(cut) {
                decoder.push(piece);
                while let Some((kind, body)) = decoder.next().unwrap() {
                    found.push((kind, body.len()));
                }
            }
            assert_eq!(found, [(Kind::Stdout, 3), (Kind::StdinEnd, 0), (Kind::Stderr, 300)]);
        }
    }

    #[test]
    fn what_is_no_frame_is_refused_at_once() {
        let mut decoder = Decoder::default();
        decoder.push(&[0x77]);
        assert_eq!(decoder.next(), Err(FrameError::Kind(0x77)));
        let mut decoder = Decoder::default();
        decoder.push(&[0x02, 0, 0, 0, 0x7f]);
        assert!(matches!(decoder.next(), Err(FrameError::TooLarge(_))));
    }
}
