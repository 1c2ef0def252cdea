//! The accept loop: one per socket, TCP or unix.
//!
//! It bounds connections and stops in two steps: on `soft` it accepts no more and lets what runs end; on `hard` it closes
//! the rest. TLS is spoken in the connection's own task, so that a slow handshake holds nobody up.

use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use runlet_core::metric;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warp::reply::Response;

use super::Peer;
use super::connection::{Connection, Metered, Wire};
use super::house::{House, Place};
use crate::tls::Certificate;

/// Room to breathe after `accept` failed: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A client has this long to agree on TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The first byte of every TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;
/// What somebody is told who speaks plain HTTP where TLS is spoken.
const SPEAK_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 45\r\n\
    Connection: close\r\n\r\nthis address speaks TLS: write https:// here\n";

/// A bound socket.
#[derive(Debug)]
pub(crate) enum Socket {
    /// On the network; with a certificate it speaks TLS and nothing else.
    Tcp(TcpListener, Option<Certificate>),
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

/// Somebody who has connected and has said nothing yet.
enum Guest {
    Tcp(TcpStream, Option<Certificate>),
    Unix(UnixStream),
}

impl Socket {
    const fn name(&self) -> &'static str {
        match self {
            Self::Tcp(..) => "tcp",
            Self::Unix(_) => "unix",
        }
    }

    async fn accept(&self) -> std::io::Result<(Guest, Peer)> {
        match self {
            Self::Tcp(listener, certificate) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Guest::Tcp(stream, certificate.clone()), Peer::Tcp(address)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred()?.uid();
                Ok((Guest::Unix(stream), Peer::Unix { uid }))
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
    let house = House::new(socket.name(), connections);
    let tasks = TaskTracker::new();
    loop {
        // First somebody, then a place for him: an empty doorstep asks nobody to leave.
        let next = async {
            let accepted = socket.accept().await;
            match accepted {
                Ok(guest) => Ok((guest, house.vacancy().await)),
                Err(error) => Err(error),
            }
        };
        let accepted = tokio::select! {
            next = next => next,
            () = stop.soft.cancelled() => break,
        };
        match accepted {
            Ok(((guest, peer), permit)) => {
                let place = house.seat(permit);
                tasks.spawn(welcome(guest, peer, place, tasks.clone(), stop.clone(), handler.clone()));
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

/// Looks after a connection from its first byte to its end.
async fn welcome<H, F>(guest: Guest, peer: Peer, place: Place, tasks: TaskTracker, stop: Stop, handler: H)
where
    H: Fn(Request<Incoming>, Peer) -> F + Send + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let ready = tokio::select! {
        ready = settle(guest, &place) => ready,
        () = stop.soft.cancelled() => None,
        () = place.pulse.leave.cancelled() => None,
    };
    let Some((wire, multiplexed)) = ready else { return };
    let pulse = Arc::clone(&place.pulse);
    Connection { wire, peer, pulse, multiplexed, tasks, stop }.serve(handler).await;
}

/// Agrees on TLS, where it is spoken. Says whether the client speaks HTTP/2.
async fn settle(guest: Guest, place: &Place) -> Option<(Box<dyn Wire>, bool)> {
    let pulse = Arc::clone(&place.pulse);
    match guest {
        Guest::Unix(stream) => Some((Box::new(Metered::new(stream, pulse)), false)),
        Guest::Tcp(stream, None) => Some((Box::new(Metered::new(stream, pulse)), false)),
        Guest::Tcp(stream, Some(certificate)) => {
            let Ok(agreed) = timeout(HANDSHAKE, handshake(stream, &certificate, place)).await else {
                metric::cut_off("handshake");
                return None;
            };
            agreed
        }
    }
}

async fn handshake(mut stream: TcpStream, certificate: &Certificate, place: &Place) -> Option<(Box<dyn Wire>, bool)> {
    let mut first = [0];
    let seen = stream.peek(&mut first).await.ok()?;
    if seen == 1 && first[0] != TLS_HANDSHAKE {
        // He learns what to do, if he reads it; what he has sent is taken off the wire so that it can reach him.
        let mut sent = [0; 4096];
        let _ = stream.try_read(&mut sent);
        let _ = stream.write_all(SPEAK_TLS).await;
        let _ = stream.shutdown().await;
        return None;
    }
    let metered = Metered::new(stream, Arc::clone(&place.pulse));
    match certificate.acceptor().accept(metered).await {
        Ok(stream) => {
            let multiplexed = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            Some((Box::new(stream), multiplexed))
        }
        Err(error) => {
            tracing::debug!(error = %error, "a TLS handshake failed");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::task::JoinSet;

    use super::super::connection::HEADER_SIZE;

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
        tasks.spawn(run(Socket::Tcp(listener, None), connections, stop.clone(), |request, _| async move {
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
        let mut first = TcpStream::connect(server.address).await.expect("connected");
        first.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
        let mut second = TcpStream::connect(server.address).await.expect("in the backlog");
        second.write_all(GET).await.expect("sent");
        let mut byte = [0; 1];
        let early = timeout(Duration::from_millis(900), second.read(&mut byte)).await;
        assert!(early.is_err(), "the only place is taken");
        drop(first);
        let answer = ask(&mut second, b"").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    #[tokio::test]
    async fn who_sends_half_a_head_makes_room_for_who_sends_a_whole_one() {
        let server = server(2).await;
        let mut silent = Vec::new();
        for _ in 0..8 {
            let mut stream = TcpStream::connect(server.address).await.expect("connected");
            stream.write_all(b"GET / HTTP/1.1\r\nHo").await.expect("sent");
            silent.push(stream);
        }
        let mut whole = TcpStream::connect(server.address).await.expect("in the backlog");
        let begin = tokio::time::Instant::now();
        let answer = ask(&mut whole, GET).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
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
