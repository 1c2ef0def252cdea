//! The pulse of a connection: what is known about its life, so that slow and silent clients can be told from busy ones.
//!
//! A connection is *busy* while a request of it is being answered, *owing* while the client does not take a part of an answer
//! that is ready. Everything else is idle. Whether code runs for long is not the client's fault and is never counted here.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Largest piece of an answer that is handed to the connection at a time: a client shows its pace by taking them.
const PIECE: usize = 64 * 1024;

tokio::task_local! {
    /// The connection that the running request came by.
    static OWN: Arc<Pulse>;
}

/// Answers a request of the connection that has this pulse.
pub(super) async fn of<F: Future>(pulse: Arc<Pulse>, answer: F) -> F::Output {
    OWN.scope(pulse, answer).await
}

/// Says that the running request waits for the rest of its body, until the guard is dropped.
pub(super) fn reading() -> Option<Reading> {
    OWN.try_with(|pulse| {
        if pulse.reading.fetch_add(1, Ordering::AcqRel) == 0 {
            pulse.reading_since.store(pulse.clock(Instant::now()), Ordering::Relaxed);
            pulse.received_before.store(pulse.received.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        Reading(Arc::clone(pulse))
    })
    .ok()
}

/// A request waits for its body.
#[derive(Debug)]
pub(super) struct Reading(Arc<Pulse>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.reading.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Who sends a body more slowly than this, in bytes a second, may be asked to leave a full house.
const PACE: u64 = 16 * 1024;

/// Requests of all connections together that are more than a few for each.
const CROWD: usize = 2048;
/// Requests of a connection that it may always have.
const FEW: usize = 8;

/// How many requests all connections of a listener have, together. HTTP/2 lets one connection have many, and each takes memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Crowd(Arc<AtomicUsize>);

/// One connection's pulse.
#[derive(Debug)]
pub(super) struct Pulse {
    begin: Instant,
    /// Requests between their head and the last byte of their answer.
    busy: AtomicUsize,
    /// The same of all connections.
    crowd: Crowd,
    /// Of them, those that wait for their body; since when the first of them does, and what had been received by then.
    reading: AtomicUsize,
    reading_since: AtomicU64,
    received_before: AtomicU64,
    /// Bytes that the client has sent.
    received: AtomicU64,
    /// When the last request ended, or the connection began: milliseconds since its begin.
    idle_since: AtomicU64,
    /// When bytes went either way for the last time, likewise.
    moved: AtomicU64,
    /// Answers of which a piece waits for the client, and since when.
    owing: Mutex<Vec<(u64, Instant)>>,
    next: AtomicU64,
    /// Ends the connection, for somebody else needs its place.
    pub(super) leave: CancellationToken,
}

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For the head of its first request, on a new connection.
    pub(super) first: Duration,
    /// Without any request after that.
    pub(super) idle: Duration,
    /// To take a piece of an answer that is ready.
    pub(super) stalled: Duration,
}

/// What to do with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Let it live.
    Keep,
    /// Nothing has happened for long: close it in order.
    Idle,
    /// The client does not read: drop it.
    Stalled,
}

impl Pulse {
    pub(super) fn new(crowd: Crowd) -> Arc<Self> {
        Arc::new(Self {
            begin: Instant::now(),
            busy: AtomicUsize::new(0),
            crowd,
            reading: AtomicUsize::new(0),
            reading_since: AtomicU64::new(0),
            received_before: AtomicU64::new(0),
            received: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            owing: Mutex::default(),
            next: AtomicU64::new(0),
            leave: CancellationToken::new(),
        })
    }

    /// Milliseconds since its begin.
    fn clock(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.begin).as_millis()).unwrap_or(u64::MAX)
    }

    fn since(&self, then: &AtomicU64, now: Instant) -> Duration {
        Duration::from_millis(self.clock(now).saturating_sub(then.load(Ordering::Relaxed)))
    }

    fn owing(&self) -> MutexGuard<'_, Vec<(u64, Instant)>> {
        self.owing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes went one way or the other.
    pub(super) fn touch(&self) {
        self.moved.store(self.clock(Instant::now()), Ordering::Relaxed);
    }

    /// Bytes came.
    pub(super) fn receive(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
        self.touch();
    }

    /// For how long its place has been of no use because of the client: it asks nothing, sends a body slowly, or does not
    /// take an answer. `None` while the server is at work for it.
    pub(super) fn wasted(&self, now: Instant) -> Option<Duration> {
        let busy = self.busy.load(Ordering::Acquire);
        if busy == 0 {
            return self.idle(now);
        }
        let owed = self.owing().iter().map(|(_, since)| now.saturating_duration_since(*since)).max();
        if busy > self.reading.load(Ordering::Acquire) {
            return owed;
        }
        let spent = self.since(&self.reading_since, now);
        let sent = self.received.load(Ordering::Relaxed) - self.received_before.load(Ordering::Relaxed);
        let slow = u128::from(sent) * 1000 < u128::from(PACE) * spent.as_millis();
        if slow { Some(spent) } else { owed }
    }

    /// How long it has had no request; `None` while it has one.
    fn idle(&self, now: Instant) -> Option<Duration> {
        (self.busy.load(Ordering::Acquire) == 0).then(|| self.since(&self.idle_since, now))
    }

    /// A request has come.
    pub(super) fn enter(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::AcqRel);
        self.crowd.0.fetch_add(1, Ordering::AcqRel);
        Busy { pulse: Arc::clone(self), number: self.next.fetch_add(1, Ordering::Relaxed) }
    }

    /// Whether there are too many requests altogether, and this connection has more than a few of them.
    pub(super) fn is_crowding(&self) -> bool {
        self.crowd.0.load(Ordering::Acquire) > CROWD && self.busy.load(Ordering::Acquire) > FEW
    }

    /// What to do at this moment.
    pub(super) fn verdict(&self, patience: &Patience, now: Instant) -> Verdict {
        let Some(silent) = self.idle(now) else {
            let stalled = |since: Instant| now.saturating_duration_since(since) >= patience.stalled;
            let owing = self.owing().iter().any(|(_, since)| stalled(*since));
            return if owing { Verdict::Stalled } else { Verdict::Keep };
        };
        if self.next.load(Ordering::Relaxed) == 0 {
            // Whatever it sends, it must become a request.
            return if silent >= patience.first { Verdict::Idle } else { Verdict::Keep };
        }
        // What is left of an answer may still be on its way; pings and half a head keep bytes moving as well.
        let still = self.since(&self.moved, now) >= patience.idle;
        if silent >= patience.idle && still || silent >= patience.idle * 4 { Verdict::Idle } else { Verdict::Keep }
    }
}

/// A request that is being answered; ends when dropped.
#[derive(Debug)]
pub(super) struct Busy {
    pulse: Arc<Pulse>,
    number: u64,
}

impl Busy {
    /// A piece is ready, and the client has not taken it yet.
    fn owe(&self) {
        self.pulse.owing().push((self.number, Instant::now()));
    }

    /// The client has taken it.
    fn settle(&self) {
        self.pulse.owing().retain(|(number, _)| *number != self.number);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.settle();
        self.pulse.idle_since.store(self.pulse.clock(Instant::now()), Ordering::Relaxed);
        self.pulse.touch();
        self.pulse.busy.fetch_sub(1, Ordering::AcqRel);
        self.pulse.crowd.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The body of an answer, handed out in pieces whose taking is watched.
#[derive(Debug)]
pub(super) struct Watched<B> {
    body: B,
    rest: Bytes,
    busy: Busy,
}

impl<B> Watched<B> {
    pub(super) fn new(body: B, busy: Busy) -> Self {
        busy.owe();
        Self { body, rest: Bytes::new(), busy }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Watched<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        // It is asked for more: so the client has taken what there was.
        self.busy.settle();
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        let size = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(size);
        self.busy.owe();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let inner = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(rest));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full};

    use super::*;

    const PATIENCE: Patience =
        Patience { first: Duration::from_secs(10), idle: Duration::from_secs(60), stalled: Duration::from_secs(30) };

    /// The verdict so many seconds from now.
    fn after(pulse: &Pulse, seconds: u64) -> Verdict {
        pulse.verdict(&PATIENCE, Instant::now() + Duration::from_secs(seconds))
    }

    #[tokio::test]
    async fn silence_is_idle_and_work_is_not() {
        let pulse = Pulse::new(Crowd::default());
        assert_eq!((after(&pulse, 9), after(&pulse, 11)), (Verdict::Keep, Verdict::Idle));
        let busy = pulse.enter();
        assert_eq!(after(&pulse, 6000), Verdict::Keep, "the code takes its time");
        drop(busy);
        assert_eq!((after(&pulse, 59), after(&pulse, 61)), (Verdict::Keep, Verdict::Idle));
        pulse.moved.store(50_000, Ordering::Relaxed);
        assert_eq!(after(&pulse, 61), Verdict::Keep, "bytes move");
        pulse.moved.store(239_000, Ordering::Relaxed);
        assert_eq!(after(&pulse, 241), Verdict::Idle, "bytes move, and no request comes of it");
    }

    #[tokio::test]
    async fn who_does_not_take_the_answer_is_stalled() {
        let pulse = Pulse::new(Crowd::default());
        let mut body = Watched::new(Full::new(Bytes::from(vec![7; PIECE * 2 + 1])), pulse.enter());
        assert_eq!(body.size_hint().exact(), Some(PIECE as u64 * 2 + 1));
        let mut sizes = Vec::new();
        for _ in 0..3 {
            assert_eq!((after(&pulse, 29), after(&pulse, 31)), (Verdict::Keep, Verdict::Stalled));
            sizes.push(body.frame().await.expect("more").expect("good").into_data().expect("data").len());
        }
        assert_eq!(sizes, [PIECE, PIECE, 1]);
        assert_eq!(after(&pulse, 31), Verdict::Stalled);
        assert!(body.frame().await.is_none());
        drop(body);
        assert_eq!(after(&pulse, 31), Verdict::Keep);
        assert!(pulse.owing().is_empty());
    }

    #[tokio::test]
    async fn a_place_is_wasted_by_silence_slowness_and_debt() {
        let pulse = Pulse::new(Crowd::default());
        let wasted = |seconds| pulse.wasted(Instant::now() + Duration::from_secs(seconds)).is_some();
        assert!(wasted(2), "it asks nothing");
        let busy = pulse.enter();
        assert!(!wasted(2), "the server is at work");
        of(Arc::clone(&pulse), async {
            let _reading = reading();
            assert!(wasted(2), "the body does not come");
            pulse.receive(1 << 20);
            assert!(!wasted(2), "it does");
            assert!(wasted(200), "it did");
        })
        .await;
        assert!(!wasted(2), "the body is there");
        busy.owe();
        assert!(wasted(2), "the answer is not taken");
        assert!(reading().is_none(), "this is no request");
    }

    #[tokio::test]
    async fn only_who_has_many_requests_makes_a_crowd() {
        let crowd = Crowd::default();
        let (greedy, modest) = (Pulse::new(crowd.clone()), Pulse::new(crowd));
        let mut many: Vec<Busy> = (0..CROWD).map(|_| greedy.enter()).collect();
        assert!(!greedy.is_crowding(), "there is room");
        let _one = modest.enter();
        assert!(greedy.is_crowding() && !modest.is_crowding());
        many.truncate(FEW);
        assert!(!greedy.is_crowding());
    }

    #[tokio::test]
    async fn a_body_that_is_not_ready_is_not_the_clients_debt() {
        let pulse = Pulse::new(Crowd::default());
        let slow = futures_util::stream::pending::<Result<Frame<Bytes>, std::io::Error>>();
        let mut body = Watched::new(http_body_util::StreamBody::new(slow), pulse.enter());
        assert!(tokio::time::timeout(Duration::from_millis(20), body.frame()).await.is_err());
        assert_eq!(after(&pulse, 6000), Verdict::Keep);
    }
}
