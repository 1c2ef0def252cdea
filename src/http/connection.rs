//! One connection from its handshake to its end: HTTP/1.1, or HTTP/2 where TLS has agreed on it.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use runlet_core::metric;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Peer;
use super::listener::Stop;
use super::pulse::{self, Patience, Pulse, Verdict, Watched};

/// A client has this long for a request line and headers, and for the first of them on a new connection.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// Request line and headers together; more is answered with 431.
pub(super) const HEADER_SIZE: usize = 64 * 1024;
/// Requests at a time on one HTTP/2 connection.
const STREAMS: u32 = 100;
/// What a client may send ahead of our reading: of one request, and of a whole connection.
const WINDOWS: (u32, u32) = (256 * 1024, 512 * 1024);
/// What is kept ready for a client that reads slowly, per request.
const SEND_AHEAD: usize = 64 * 1024;
/// A quiet HTTP/2 connection is asked whether it is still there, and has this long to answer.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(15));
const PATIENCE: Patience =
    Patience { first: HEADER_TIME, idle: Duration::from_secs(60), stalled: Duration::from_secs(30) };
/// How often a connection's pulse is felt.
const LOOK: Duration = Duration::from_secs(2);
/// How long a connection that was closed in order may take to be gone.
const FAREWELL: Duration = Duration::from_secs(5);

/// In the extensions of a request: its connection has many of too many, and this one is to be refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crowding;

/// A connection, whatever it runs over.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A connection that is ready for its first request.
pub(super) struct Connection {
    pub(super) wire: Box<dyn Wire>,
    pub(super) peer: Peer,
    pub(super) pulse: Arc<Pulse>,
    /// Whether it speaks HTTP/2.
    pub(super) multiplexed: bool,
    pub(super) tasks: TaskTracker,
    pub(super) stop: Stop,
}

impl Connection {
    /// Serves it to its end; after the soft stop it takes no further request.
    pub(super) async fn serve<H, F>(self, handler: H)
    where
        H: Fn(Request<Incoming>, Peer) -> F + Send + 'static,
        F: Future<Output = warp::reply::Response> + Send + 'static,
    {
        let Self { wire, peer, pulse, multiplexed, tasks, stop } = self;
        let of_service = Arc::clone(&pulse);
        let service = service_fn(move |mut request: Request<Incoming>| {
            let busy = of_service.enter();
            if of_service.is_crowding() {
                request.extensions_mut().insert(Crowding);
            }
            // On the heap: whatever holds an answer on its way to the wire moves it, and keeps room for it twice.
            let answer = Box::pin(pulse::of(Arc::clone(&of_service), handler(request, peer)));
            async move { Ok::<Response<_>, std::convert::Infallible>(answer.await.map(|body| Watched::new(body, busy))) }
        });
        // Whatever still runs for a connection that is gone ends with it.
        let gone = stop.hard.child_token();
        let _gone = gone.clone().drop_guard();
        let io = TokioIo::new(wire);
        if multiplexed {
            let connection = http2::Builder::new(Streams { tasks, gone })
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS)
                .max_header_list_size(u32::try_from(HEADER_SIZE).unwrap_or(u32::MAX))
                .initial_stream_window_size(WINDOWS.0)
                .initial_connection_window_size(WINDOWS.1)
                .max_send_buf_size(SEND_AHEAD)
                .keep_alive_interval(PING.0)
                .keep_alive_timeout(PING.1)
                .serve_connection(io, service);
            attend(connection, |connection| connection.graceful_shutdown(), &pulse, &stop).await;
        } else {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIME)
                .max_header_size(HEADER_SIZE)
                .serve_connection(io, service);
            attend(connection, |connection| connection.graceful_shutdown(), &pulse, &stop).await;
        }
    }
}

/// Drives a connection until it ends, is asked to stop, or its pulse says that it should.
async fn attend<C>(connection: C, farewell: impl Fn(Pin<&mut C>), pulse: &Pulse, stop: &Stop)
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    let mut connection = pin!(connection);
    let mut look = interval_at(Instant::now() + LOOK, LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stopping = false;
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = stop.hard.cancelled() => return,
            () = pulse.leave.cancelled() => return,
            () = stop.soft.cancelled(), if !stopping => {
                stopping = true;
                farewell(connection.as_mut());
            }
            _ = look.tick() => match pulse.verdict(&PATIENCE, Instant::now()) {
                Verdict::Keep => {}
                Verdict::Stalled => return metric::cut_off("stalled"),
                Verdict::Idle => {
                    metric::cut_off("idle");
                    farewell(connection.as_mut());
                    match timeout(FAREWELL, connection.as_mut()).await {
                        Ok(ended) => break ended,
                        Err(_) => return,
                    }
                }
            },
        }
    };
    if let Err(error) = ended {
        // A client that went away, was too slow or spoke no HTTP: its own affair.
        tracing::debug!(error = %error, "a connection ended early");
    }
}

/// Owns the tasks of HTTP/2 requests: each ends with its connection.
#[derive(Debug, Clone)]
struct Streams {
    tasks: TaskTracker,
    gone: CancellationToken,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let gone = self.gone.clone();
        let mut stream = Box::pin(stream);
        self.tasks.spawn(async move {
            tokio::select! {
                _ = stream.as_mut() => {}
                () = gone.cancelled() => {}
            }
        });
    }
}

/// Tells the pulse when bytes go either way.
pub(super) struct Metered<S> {
    stream: S,
    pulse: Arc<Pulse>,
}

impl<S> Metered<S> {
    pub(super) const fn new(stream: S, pulse: Arc<Pulse>) -> Self {
        Self { stream, pulse }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, into));
        let more = into.filled().len() - before;
        if more > 0 {
            self.pulse.receive(more);
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        self.pulse.touch();
        Poll::Ready(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bytes));
        self.pulse.touch();
        Poll::Ready(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
