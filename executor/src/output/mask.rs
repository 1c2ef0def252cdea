//! Masking: values that must not be on record are replaced in the output before it is.
//!
//! A stream is looked through as it comes; bytes that may be the begin of a value wait for those that follow.

use bytes::{Bytes, BytesMut};
use runlet_core::engine::Stream;
use runlet_core::secret::Secret;

use crate::session::OutputSink;

/// What stands in the place of a value.
const MASK: &[u8] = b"[MASKED]";

/// A sink that masks on the way to another.
pub(crate) struct Masked<S> {
    sink: S,
    masks: Masks,
    /// Per stream, what waits.
    tails: [BytesMut; 2],
}

/// The values, longest first, so that a value that holds another is masked as a whole.
#[derive(Debug, Clone, Default)]
pub(crate) struct Masks(std::sync::Arc<[Secret]>);

impl Masks {
    /// The values that are masked; empty ones are none.
    pub(crate) fn new(mut values: Vec<Secret>) -> Self {
        values.retain(|value| !value.expose().is_empty());
        values.sort_by_key(|value| std::cmp::Reverse(value.expose().len()));
        Self(values.into())
    }

    /// Takes what is certain from the begin of `bytes`; with `all`, everything.
    fn take(&self, bytes: &mut BytesMut, all: bool) -> Bytes {
        if self.0.is_empty() {
            return bytes.split().freeze();
        }
        let mut out = BytesMut::with_capacity(bytes.len());
        let mut at = 0;
        'next: while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            for value in self.0.iter().map(Secret::expose) {
                if rest.starts_with(value) {
                    out.extend_from_slice(MASK);
                    at += value.len();
                    continue 'next;
                }
                if !all && value.starts_with(rest) {
                    break 'next;
                }
            }
            out.extend_from_slice(&rest[..1]);
            at += 1;
        }
        let _ = bytes.split_to(at);
        out.freeze()
    }
}

impl<S: OutputSink> Masked<S> {
    /// Masks on the way to `sink`.
    pub(crate) fn new(sink: S, masks: Masks) -> Self {
        Self { sink, masks, tails: Default::default() }
    }

    /// Hands on what waits, and gives the sink back.
    pub(crate) async fn finish(mut self) -> S {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = self.masks.take(&mut self.tails[usize::from(stream == Stream::Stderr)], true);
            if !rest.is_empty() {
                self.sink.write(stream, rest).await;
            }
        }
        self.sink
    }
}

impl<S: OutputSink> OutputSink for Masked<S> {
    async fn write(&mut self, stream: Stream, bytes: Bytes) {
        if self.masks.0.is_empty() {
            return self.sink.write(stream, bytes).await;
        }
        let tail = &mut self.tails[usize::from(stream == Stream::Stderr)];
        tail.extend_from_slice(&bytes);
        let certain = self.masks.take(tail, false);
        if !certain.is_empty() {
            self.sink.write(stream, certain).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn masks(values: &[&str]) -> Masks {
        Masks::new(values.iter().map(|value| Secret::new(value.as_bytes())).collect())
    }

    fn masked(values: &[&str], pieces: &[&str]) -> String {
        let masks = masks(values);
        let (mut tail, mut out) = (BytesMut::new(), Vec::new());
        for piece in pieces {
            tail.extend_from_slice(piece.as_bytes());
            out.extend_from_slice(&masks.take(&mut tail, false));
        }
        out.extend_from_slice(&masks.take(&mut tail, true));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_are_found_wherever_the_pieces_are_cut() {
        assert_eq!(masked(&["hunter2"], &["a hun", "ter2 b"]), "a [MASKED] b");
        assert_eq!(masked(&["hunter2"], &["hunter", " hunter2"]), "hunter [MASKED]");
        assert_eq!(masked(&["ab", "abcd"], &["xab", "cdab"]), "x[MASKED][MASKED]");
        assert_eq!(masked(&["aab"], &["aaab"]), "a[MASKED]");
        assert_eq!(masked(&["", "x"], &["xx"]), "[MASKED][MASKED]");
        assert_eq!(masked(&[], &["xx"]), "xx");
    }

    proptest! {
        #[test]
        fn the_cut_does_not_matter(text in "[ab]{0,30}", cut in 0_usize..30) {
            let cut = cut.min(text.len());
            let whole = masked(&["aba", "bb"], &[&text]);
            prop_assert_eq!(masked(&["aba", "bb"], &[&text[..cut], &text[cut..]]), whole.clone());
            prop_assert!(!whole.contains("aba") && !whole.contains("bb"));
        }
    }
}
