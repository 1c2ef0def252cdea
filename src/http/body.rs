//! Request bodies: read into memory under a limit, a budget shared by all requests, and a clock.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use hyper::HeaderMap;
use hyper::header::{CONTENT_LENGTH, EXPECT};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::pulse;

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// To send something.
    progress: Duration,
    /// To be done.
    whole: Duration,
    /// Before its pace counts.
    grace: Duration,
    /// Slowest pace after that, bytes a second on the average.
    pace: u64,
}

impl Patience {
    /// When one must be done who has sent so many bytes.
    fn end(&self, received: usize) -> Duration {
        let earned = Duration::from_secs(received as u64 / self.pace);
        self.grace.saturating_add(earned).min(self.whole)
    }
}

const PATIENCE: Patience = Patience {
    progress: Duration::from_secs(30),
    whole: Duration::from_secs(600),
    grace: Duration::from_secs(20),
    pace: 1024,
};
/// What is read and thrown away before a refusal is sent, so that the client reads the answer instead of a broken pipe.
const DISCARD_BYTES: usize = 64 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// A body as it comes in.
pub(crate) type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes, warp::Error>> + Send + Sync>>;

/// The bytes of request bodies that may be in memory at a time.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<Semaphore>);

impl Budget {
    /// A budget of `bytes`.
    pub(crate) fn new(bytes: u64) -> Self {
        let permits = usize::try_from(bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Semaphore::new(permits)))
    }
}

/// A body in memory. Its part of the budget comes free when it is dropped.
#[derive(Debug)]
pub(crate) struct Body {
    /// The bytes.
    pub bytes: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    /// It is larger than allowed here.
    #[error("the body is larger than {0} bytes, which is the limit here")]
    TooLarge(usize),
    /// The client takes too long.
    #[error(
        "the body did not come in time: at least {} bytes a second after the first {} s, and no more than {} s in all",
        PATIENCE.pace,
        PATIENCE.grace.as_secs(),
        PATIENCE.whole.as_secs()
    )]
    TooSlow,
    /// Other requests hold the whole budget.
    #[error("too many request bodies are in memory at the moment; try again")]
    NoRoom,
    /// The connection broke, or the chunks are malformed.
    #[error("the body ended early or is malformed")]
    Broken,
}

/// Reads a body of at most `limit` bytes. The length that the client declares is believed only where it is too large.
///
/// # Errors
/// See [`BodyError`].
pub(crate) async fn read(
    mut stream: BodyStream,
    headers: &HeaderMap,
    limit: usize,
    budget: &Budget,
) -> Result<Body, BodyError> {
    let result = collect(&mut stream, declared(headers), limit, budget, PATIENCE).await;
    // A client that expects `100 Continue` has sent nothing yet and reads the refusal first.
    if result.is_err() && !headers.contains_key(EXPECT) {
        discard(stream).await;
    }
    result
}

fn declared(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn collect(
    stream: &mut BodyStream,
    declared: Option<usize>,
    limit: usize,
    budget: &Budget,
    patience: Patience,
) -> Result<Body, BodyError> {
    if declared.is_some_and(|length| length > limit) {
        return Err(BodyError::TooLarge(limit));
    }
    let _reading = pulse::reading();
    let begin = Instant::now();
    let mut share: Option<OwnedSemaphorePermit> = None;
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    loop {
        let end = begin + patience.end(first.len() + all.len());
        let left = patience.progress.min(end.saturating_duration_since(Instant::now()));
        let chunk = match timeout(left, stream.next()).await {
            Err(_) => return Err(BodyError::TooSlow),
            Ok(None) => break,
            Ok(Some(Err(_))) => return Err(BodyError::Broken),
            Ok(Some(Ok(chunk))) => chunk,
        };
        if first.len() + all.len() + chunk.len() > limit {
            return Err(BodyError::TooLarge(limit));
        }
        let permits = u32::try_from(chunk.len()).map_err(|_| BodyError::TooLarge(limit))?;
        let more = Arc::clone(&budget.0).try_acquire_many_owned(permits).map_err(|_| BodyError::NoRoom)?;
        match &mut share {
            Some(share) => share.merge(more),
            None => share = Some(more),
        }
        // Most bodies are one chunk: those are passed on without a copy.
        if first.is_empty() && all.is_empty() {
            first = chunk;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&chunk);
        }
    }
    Ok(Body { bytes: if all.is_empty() { first } else { all.freeze() }, _share: share })
}

/// Reads and forgets what a refused client still sends, within bounds.
pub(crate) async fn discard<T, E>(mut stream: impl Stream<Item = Result<T, E>> + Unpin)
where
    T: bytes::Buf,
{
    let mut left = DISCARD_BYTES;
    let reading = async {
        while let Some(Ok(chunk)) = stream.next().await {
            match left.checked_sub(chunk.remaining()) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    let _reading = pulse::reading();
    // Running out of time is no error here: the connection is closed then.
    let _ = timeout(DISCARD_TIME, reading).await;
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use hyper::header::HeaderValue;

    use super::*;

    fn chunks(list: &[&'static [u8]]) -> BodyStream {
        Box::pin(stream::iter(list.iter().map(|chunk| Ok(Bytes::from_static(chunk))).collect::<Vec<_>>()))
    }

    #[tokio::test]
    async fn chunks_are_joined_and_bounded_whatever_the_header_says() {
        let budget = Budget::new(100);
        let mut headers = HeaderMap::new();
        let body = read(chunks(&[b"ab", b"", b"cd", b"e"]), &headers, 5, &budget).await.expect("it fits");
        assert_eq!(body.bytes, "abcde");
        let over = read(chunks(&[b"ab", b"cd", b"ef"]), &headers, 5, &budget).await;
        assert_eq!(over.err(), Some(BodyError::TooLarge(5)));
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("3"));
        let lie = read(chunks(&[b"abcdef"]), &headers, 5, &budget).await;
        assert_eq!(lie.err(), Some(BodyError::TooLarge(5)));
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("6"));
        let declared = read(chunks(&[]), &headers, 5, &budget).await;
        assert_eq!(declared.err(), Some(BodyError::TooLarge(5)));
    }

    #[tokio::test]
    async fn the_budget_is_shared_and_comes_back() {
        let budget = Budget::new(6);
        let headers = HeaderMap::new();
        let first = read(chunks(&[b"abcd"]), &headers, 10, &budget).await.expect("it fits");
        assert_eq!(read(chunks(&[b"abc"]), &headers, 10, &budget).await.err(), Some(BodyError::NoRoom));
        drop(first);
        assert!(read(chunks(&[b"abc"]), &headers, 10, &budget).await.is_ok());
    }

    const SHORT: Patience = Patience {
        progress: Duration::from_millis(40),
        whole: Duration::from_millis(200),
        grace: Duration::from_millis(200),
        pace: 1,
    };

    #[tokio::test]
    async fn a_client_that_sends_nothing_is_cut_off() {
        let mut slow: BodyStream = Box::pin(stream::pending());
        let result = collect(&mut slow, None, 10, &Budget::new(10), SHORT).await;
        assert_eq!(result.err(), Some(BodyError::TooSlow));
    }

    #[tokio::test]
    async fn dripping_bytes_for_ever_does_not_help() {
        let drip = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Some((Ok(Bytes::from_static(b"x")), ()))
        });
        let mut drip: BodyStream = Box::pin(drip);
        let result = collect(&mut drip, None, 100_000, &Budget::new(100_000), SHORT).await;
        assert_eq!(result.err(), Some(BodyError::TooSlow));
    }

    #[test]
    fn time_is_earned_by_sending() {
        let seconds = |received| PATIENCE.end(received).as_secs();
        assert_eq!((seconds(0), seconds(100 << 10), seconds(25 << 20)), (20, 120, 600));
    }
}
