//! The frames of fd 3, version 1: what the host and a runner say to each other, as bytes.
//!
//! ```text
//! u32 length | u8 kind | u8 flags | u16 0 | u64 call | length bytes        (little-endian)
//! ```
//! This module knows the shape of a frame. Which frame may follow which is the business of those who talk.

use bytes::{Buf, Bytes, BytesMut};

/// Most bytes that one frame carries; a longer body is several `data` frames.
pub const MAX_FRAME: usize = 1 << 20;

/// Bytes of a frame before its body.
pub const HEADER: usize = 16;

/// Bit 0 of the flags: the call's body ends with this frame.
const END: u8 = 1;

/// What a frame says. The numbers are part of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// runner: which versions and features it knows.
    Hello = 1,
    /// host: which version it chose.
    Welcome = 2,
    /// host: handler, environment, limits.
    Init = 3,
    /// runner: the handler is loaded.
    Ready = 4,
    /// runner: the handler could not be loaded.
    InitError = 5,
    /// host: a call begins.
    Invoke = 6,
    /// either: a piece of a call's body.
    Data = 7,
    /// runner: output of a call, where calls share the pipes.
    Log = 8,
    /// runner: the call returned.
    Result = 9,
    /// runner: the call raised.
    Error = 10,
    /// host: the call is no longer wanted.
    Cancel = 11,
    /// host: the runner may go.
    Bye = 12,
}

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Hello,
        Self::Welcome,
        Self::Init,
        Self::Ready,
        Self::InitError,
        Self::Invoke,
        Self::Data,
        Self::Log,
        Self::Result,
        Self::Error,
        Self::Cancel,
        Self::Bye,
    ];

    /// The kind of that number.
    #[must_use]
    pub fn of(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it says.
    pub kind: Kind,
    /// Whether the call's body ends with it.
    pub end: bool,
    /// The call it belongs to, from 1; 0 where it belongs to none.
    pub call: u64,
    /// Its bytes.
    pub body: Bytes,
}

/// Bytes that are no frame of version 1. The stream cannot be read on.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// No kind has that number.
    #[error("a frame of the unknown kind {0}")]
    UnknownKind(u8),
    /// The body is longer than [`MAX_FRAME`].
    #[error("a frame of {0} bytes, where {MAX_FRAME} are the most")]
    Oversize(usize),
    /// A bit that has no meaning yet is set.
    #[error("a frame with unknown flags or reserved bits set")]
    Reserved,
}

/// The header of a frame whose body of `length` bytes is written separately.
///
/// # Errors
/// [`FrameError::Oversize`] for a body that must be split.
pub fn header(kind: Kind, end: bool, call: u64, length: usize) -> Result<[u8; HEADER], FrameError> {
    let Some(short) = u32::try_from(length).ok().filter(|_| length <= MAX_FRAME) else {
        return Err(FrameError::Oversize(length));
    };
    let mut bytes = [0; HEADER];
    bytes[..4].copy_from_slice(&short.to_le_bytes());
    bytes[4] = kind as u8;
    bytes[5] = if end { END } else { 0 };
    bytes[8..].copy_from_slice(&call.to_le_bytes());
    Ok(bytes)
}

/// Appends the bytes of `frame` to `out`.
///
/// # Errors
/// [`FrameError::Oversize`] for a body that must be split; `out` is as it was then.
pub fn encode(frame: &Frame, out: &mut BytesMut) -> Result<(), FrameError> {
    let header = header(frame.kind, frame.end, frame.call, frame.body.len())?;
    out.reserve(HEADER + frame.body.len());
    out.extend_from_slice(&header);
    out.extend_from_slice(&frame.body);
    Ok(())
}

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// A decoder that has seen nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Where the next bytes of the stream are to be appended, for readers that fill a buffer themselves.
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Whether no bytes are left over: the stream may end here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next whole frame; `None` until more bytes come.
    ///
    /// A header is judged as soon as it is there, so that nobody is made to buffer a body that will be refused.
    ///
    /// # Errors
    /// [`FrameError`]; every later call returns it again.
    #[expect(clippy::should_implement_trait, reason = "a decoder is no iterator: `None` is not the end")]
    pub fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let [l0, l1, l2, l3, kind, flags, r0, r1, call @ ..] = *header;
        let kind = Kind::of(kind).ok_or(FrameError::UnknownKind(kind))?;
        if flags & !END != 0 || r0 != 0 || r1 != 0 {
            return Err(FrameError::Reserved);
        }
        let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        if length > MAX_FRAME {
            return Err(FrameError::Oversize(length));
        }
        if self.buffer.len() < HEADER + length {
            self.buffer.reserve(HEADER + length - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        let body = self.buffer.split_to(length).freeze();
        Ok(Some(Frame { kind, end: flags & END != 0, call: u64::from_le_bytes(call), body }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_frame() -> impl Strategy<Value = Frame> {
        let body = proptest::collection::vec(any::<u8>(), 0..200);
        (proptest::sample::select(&Kind::ALL), any::<bool>(), any::<u64>(), body)
            .prop_map(|(kind, end, call, body)| Frame { kind, end, call, body: body.into() })
    }

    fn decode(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
        let mut decoder = Decoder::new();
        decoder.push(bytes);
        decoder.next()
    }

    #[test]
    fn version_1_is_these_bytes() {
        let mut out = BytesMut::new();
        let body = Bytes::from_static(b"{}");
        encode(&Frame { kind: Kind::Data, end: true, call: 0x0102, body }, &mut out).expect("it is small");
        assert_eq!(&out[..], b"\x02\x00\x00\x00\x07\x01\x00\x00\x02\x01\x00\x00\x00\x00\x00\x00{}");
        let numbers: Vec<u8> = Kind::ALL.iter().map(|kind| *kind as u8).collect();
        assert_eq!(numbers, (1..=12).collect::<Vec<u8>>());
    }

    #[test]
    fn hostile_headers_are_refused_before_their_body_comes() {
        let good = header(Kind::Result, false, 1, 0).expect("it is small");
        for number in [0, 13, 255] {
            let mut bytes = good;
            bytes[4] = number;
            assert_eq!(decode(&bytes), Err(FrameError::UnknownKind(number)));
        }
        for (at, value) in [(5, 2), (5, 0x80), (6, 1), (7, 1)] {
            let mut bytes = good;
            bytes[at] = value;
            assert_eq!(decode(&bytes), Err(FrameError::Reserved));
        }
        let mut bytes = good;
        bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(&bytes), Err(FrameError::Oversize(4_294_967_295)));
        bytes[..4].copy_from_slice(&0x0010_0001_u32.to_le_bytes());
        assert_eq!(decode(&bytes), Err(FrameError::Oversize(MAX_FRAME + 1)));
    }

    #[test]
    fn a_body_at_the_limit_passes_and_one_above_is_refused() {
        let mut out = BytesMut::new();
        let frame = |length| Frame { kind: Kind::Data, end: false, call: 1, body: vec![7; length].into() };
        encode(&frame(MAX_FRAME), &mut out).expect("it is at the limit");
        assert_eq!(decode(&out), Ok(Some(frame(MAX_FRAME))));
        out.clear();
        assert_eq!(encode(&frame(MAX_FRAME + 1), &mut out), Err(FrameError::Oversize(MAX_FRAME + 1)));
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting_of_the_stream(
            frames in proptest::collection::vec(any_frame(), 0..6),
            cuts in proptest::collection::vec(1usize..40, 1..60),
        ) {
            let mut stream = BytesMut::new();
            for frame in &frames {
                encode(frame, &mut stream).expect("they are small");
            }
            let mut decoder = Decoder::new();
            let mut seen = Vec::new();
            let mut cuts = cuts.iter().cycle();
            while !stream.is_empty() {
                let size = cuts.next().copied().unwrap_or(1).min(stream.len());
                decoder.push(&stream.split_to(size));
                while let Some(frame) = decoder.next().expect("they are valid") {
                    seen.push(frame);
                }
            }
            prop_assert!(decoder.is_empty());
            prop_assert_eq!(seen, frames);
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut decoder = Decoder::new();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next() {}
        }
    }
}
