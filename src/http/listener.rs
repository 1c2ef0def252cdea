//! The accept loop: one per socket, TCP or unix.
//!
//! It bounds connections, header size and header time, and stops in two steps: on `soft` it accepts no more and lets what
//! runs end; on `hard` it closes the rest.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warp::reply::Response;

use super::Peer;

/// A client has this long for its request line and headers; an idle connection is closed after it.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// Request line and headers together; more is answered with 431.
const HEADER_SIZE: usize = 64 * 1024;
/// Room to breathe after `accept` failed: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound socket.
#[derive(Debug)]
pub(crate) enum Socket {
    /// On the network.
    Tcp(TcpListener),
    /// On this machine.
    Unix(UnixListener),
}

/// When to stop.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    /// Accept nothing new, let the rest end.
    pub soft: CancellationToken,
    /// Close what is left.
    pub hard: CancellationToken,
}

/// A connection, whatever it runs over.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

impl Socket {
    async fn accept(&self) -> std::io::Result<(Box<dyn Wire>, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Box::new(stream), Peer::Tcp(address)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred()?.uid();
                Ok((Box::new(stream), Peer::Unix { uid }))
            }
        }
    }
}

/// Serves `socket` with `handler`, at most `connections` at a time, until `stop`; returns when every connection is closed.
pub(crate) async fn run<H, F>(socket: Socket, connections: usize, stop: Stop, handler: H)
where
    H: Fn(Request<Incoming>, Peer) -> F + Clone + Send + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(connections));
    let tasks = TaskTracker::new();
    loop {
        let next = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (socket.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            next = next => next,
            () = stop.soft.cancelled() => break,
        };
        match accepted {
            Ok((wire, peer)) => {
                let connection = serve(wire, peer, stop.soft.clone(), handler.clone());
                let hard = stop.hard.clone();
                tasks.spawn(async move {
                    tokio::select! {
                        () = connection => {}
                        () = hard.cancelled() => {}
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(error = %error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(socket);
    tasks.close();
    tasks.wait().await;
}

/// Serves one connection to its end; after `soft` it takes no further request.
async fn serve<H, F>(wire: Box<dyn Wire>, peer: Peer, soft: CancellationToken, handler: H)
where
    H: Fn(Request<Incoming>, Peer) -> F + Send + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = handler(request, peer);
        async move { Ok::<_, std::convert::Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_header_size(HEADER_SIZE)
        .serve_connection(TokioIo::new(wire), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = soft.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // A client that went away, was too slow or spoke no HTTP: its own affair.
        tracing::debug!(error = %error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::task::JoinSet;

    use super::*;

    struct Server {
        address: std::net::SocketAddr,
        stop: Stop,
        tasks: JoinSet<()>,
    }

    async fn server(connections: usize) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("it has one");
        let stop = Stop::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(run(Socket::Tcp(listener), connections, stop.clone(), |request, _| async move {
            if request.uri().path() == "/slow" {
                std::future::pending::<()>().await;
            }
            Response::new("hello".into())
        }));
        Server { address, stop, tasks }
    }

    async fn ask(stream: &mut TcpStream, request: &[u8]) -> String {
        // A server that refuses may close before everything is sent.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    #[tokio::test]
    async fn large_headers_are_answered_with_431() {
        let server = server(4).await;
        let mut stream = TcpStream::connect(server.address).await.expect("connected");
        let mut request = b"GET / HTTP/1.1\r\nHost: x\r\nX: ".to_vec();
        request.resize(HEADER_SIZE + 100, b'a');
        let answer = ask(&mut stream, &request).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }

    #[tokio::test]
    async fn connections_over_the_bound_wait_for_room() {
        let server = server(1).await;
        let first = TcpStream::connect(server.address).await.expect("connected");
        let mut second = TcpStream::connect(server.address).await.expect("in the backlog");
        second.write_all(GET).await.expect("sent");
        let mut byte = [0; 1];
        let early = tokio::time::timeout(Duration::from_millis(100), second.read(&mut byte)).await;
        assert!(early.is_err(), "the only place is taken");
        drop(first);
        let answer = ask(&mut second, b"").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    #[tokio::test]
    async fn stopping_closes_idle_connections_at_once_and_busy_ones_when_it_gets_hard() {
        let mut server = server(4).await;
        let mut idle = TcpStream::connect(server.address).await.expect("connected");
        let mut busy = TcpStream::connect(server.address).await.expect("connected");
        idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
        let mut head = [0; 12];
        idle.read_exact(&mut head).await.expect("answered");
        busy.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
        server.stop.soft.cancel();
        let mut rest = Vec::new();
        idle.read_to_end(&mut rest).await.expect("closed");
        assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
        server.stop.hard.cancel();
        server.tasks.join_next().await.expect("there is one").expect("it does not panic");
    }
}
