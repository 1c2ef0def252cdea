//! The way from the command line to a server: one HTTP/1.1 request over a unix or TCP socket, or TLS.
//!
//! Knows sockets, headers and timeouts; does not know what any route means or how a problem is shown.

pub(crate) mod duplex;
pub(crate) mod host;
mod patient;
mod secure;

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::http::request::Builder;
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use runlet_core::name::Namespace;
use runlet_core::token::TokenSecret;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use self::host::Host;
use self::patient::Patient;
use self::secure::Secure;
pub(crate) use self::secure::{TrustError, trusted};

const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);
const ANSWER_MAX: usize = 256 << 20;

/// A connection to a server.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A server and how to authenticate there.
#[derive(Debug)]
pub(crate) struct Client {
    host: Host,
    token: Option<TokenSecret>,
    namespace: Option<Namespace>,
}

/// One request.
#[derive(Debug)]
pub(crate) struct Call {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    patience: Option<Duration>,
}

/// What the server answered, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: StatusCode,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The whole body.
    pub(crate) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The socket could not be connected.
    #[error("no server answers at {host}")]
    Connect {
        /// Where it was looked for.
        host: Host,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is somebody, and no safe way to talk to him.
    #[error("no safe connection to {host}")]
    Unsafe {
        /// The server.
        host: Host,
        /// Why the handshake failed.
        source: io::Error,
    },
    /// It is not known whom to trust.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The connection broke before the answer was complete.
    #[error("the connection to {host} broke after a request of {sent} bytes")]
    Broken {
        /// The server.
        host: Host,
        /// Size of the request's body.
        sent: usize,
        /// How it broke.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer did not come in time.
    #[error("{host} took the request and did not answer within {} s", patience.as_secs())]
    NoAnswer {
        /// The server.
        host: Host,
        /// How long it was waited for.
        patience: Duration,
    },
    /// A header would not be valid: the token, the content type or the idempotency key.
    #[error("the token, the content type or the idempotency key has characters that no header can carry")]
    BadHeader(#[source] hyper::http::Error),
}

impl Call {
    fn new(method: Method, path: impl Into<String>) -> Self {
        let path = path.into();
        Self { method, path, headers: Vec::new(), body: Bytes::new(), patience: Some(ANSWER_PATIENCE) }
    }

    /// GET `path`.
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// POST to `path`.
    pub(crate) fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    /// PUT to `path`.
    pub(crate) fn put(path: impl Into<String>) -> Self {
        Self::new(Method::PUT, path)
    }

    /// PATCH `path`.
    pub(crate) fn patch(path: impl Into<String>) -> Self {
        Self::new(Method::PATCH, path)
    }

    /// DELETE `path`.
    pub(crate) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    /// Adds `name=value` to the query.
    pub(crate) fn query(mut self, name: &str, value: impl ToString) -> Self {
        self.path.push(if self.path.contains('?') { '&' } else { '?' });
        self.path.push_str(name);
        self.path.push('=');
        percent_encode(&value.to_string(), &mut self.path);
        self
    }

    /// Adds `name=value` to the query if there is a value.
    pub(crate) fn query_if(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sets the body.
    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Waits for the answer as long as it takes: the server owns the deadline of a call.
    pub(crate) fn patient(mut self) -> Self {
        self.patience = None;
        self
    }
}

impl Client {
    /// A client of `host`; nothing is connected yet.
    pub(crate) const fn new(host: Host, token: Option<TokenSecret>, namespace: Option<Namespace>) -> Self {
        Self { host, token, namespace }
    }

    /// The server.
    pub(crate) const fn host(&self) -> &Host {
        &self.host
    }

    /// Sends one request on a connection of its own and takes the whole answer.
    pub(crate) async fn send(&self, call: Call) -> Result<Answer, ClientError> {
        let patience = call.patience;
        let exchange = self.connect_and_exchange(call);
        match patience {
            None => exchange.await,
            Some(patience) => match tokio::time::timeout(patience, exchange).await {
                Ok(answer) => answer,
                Err(_) => Err(ClientError::NoAnswer { host: self.host.clone(), patience }),
            },
        }
    }

    async fn connect_and_exchange(&self, call: Call) -> Result<Answer, ClientError> {
        let sent = call.body.len();
        let request = self.request(call)?;
        let answer = exchange(self.connect().await?, request).await;
        answer.map_err(|source| ClientError::Broken { host: self.host.clone(), sent, source })
    }

    /// A connection of its own, whatever it runs over.
    async fn connect(&self) -> Result<Box<dyn Wire>, ClientError> {
        match &self.host {
            Host::Unix(path) => Ok(Box::new(self.connected(UnixStream::connect(path)).await?)),
            Host::Http { name, port } => Ok(Box::new(self.tcp(name, *port).await?)),
            Host::Https { name, port } => {
                let secure = Secure::new(name)?;
                let stream = self.tcp(name, *port).await?;
                let shaken = tokio::time::timeout(CONNECT_PATIENCE, secure.over(stream)).await;
                let shaken =
                    shaken.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no handshake within 5 s")));
                match shaken {
                    Ok(stream) => Ok(Box::new(stream)),
                    Err(source) => Err(ClientError::Unsafe { host: self.host.clone(), source }),
                }
            }
        }
    }

    async fn tcp(&self, name: &str, port: u16) -> Result<TcpStream, ClientError> {
        let stream = self.connected(TcpStream::connect(format!("{name}:{port}"))).await?;
        // Only latency is lost where this fails.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    async fn connected<S>(&self, connecting: impl Future<Output = io::Result<S>>) -> Result<S, ClientError> {
        let timeout = || io::Error::new(io::ErrorKind::TimedOut, "no connection within 5 s");
        let result = tokio::time::timeout(CONNECT_PATIENCE, connecting).await.unwrap_or_else(|_| Err(timeout()));
        result.map_err(|source| ClientError::Connect { host: self.host.clone(), source })
    }

    fn request(&self, call: Call) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut builder: Builder = Request::builder().method(call.method).uri(call.path);
        builder = builder
            .header(HOST, self.host.header())
            .header("user-agent", concat!("runlet/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token {
            builder = builder.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        if let Some(namespace) = &self.namespace {
            builder = builder.header("runlet-namespace", namespace.as_str());
        }
        for (name, value) in call.headers {
            builder = builder.header(name, value);
        }
        builder.body(Full::new(call.body)).map_err(ClientError::BadHeader)
    }
}

type Broken = Box<dyn std::error::Error + Send + Sync>;

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, Broken>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(Patient::new(stream))).await?;
    let exchange = async move {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await?.to_bytes();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    };
    // The connection is driven here, beside the exchange, so that no task outlives the request.
    let (mut connection, mut exchange) = (pin!(connection), pin!(exchange));
    tokio::select! {
        answer = &mut exchange => answer,
        closed = &mut connection => match (exchange.await, closed) {
            (Err(_), Err(why)) => Err(why.into()),
            (answer, _) => answer,
        },
    }
}

fn percent_encode(text: &str, into: &mut String) {
    use std::fmt::Write as _;
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    #[test]
    fn queries_are_encoded() {
        let call =
            Call::get("/v1/executions").query("since", "2026-01-01T00:00:00+01:00").query_if("state", Some("a b&c"));
        assert_eq!(call.path, "/v1/executions?since=2026-01-01T00%3A00%3A00%2B01%3A00&state=a%20b%26c");
        assert_eq!(Call::get("/x").query_if("a", None::<u8>).path, "/x");
    }

    /// Answers one request with `answer` and returns what was asked.
    async fn serve_once(listener: TcpListener, answer: &'static str) -> String {
        let (mut stream, _) = listener.accept().await.expect("a client connects");
        let mut asked = Vec::new();
        while !asked.windows(4).any(|four| four == b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut asked).await.expect("readable"), 0);
        }
        stream.write_all(answer.as_bytes()).await.expect("writable");
        String::from_utf8(asked).expect("a request head is text")
    }

    async fn client() -> (TcpListener, Client) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let host = Host::Http { name: "127.0.0.1".into(), port: listener.local_addr().expect("bound").port() };
        (listener, Client::new(host, Some(TokenSecret::from_text("rl_x")), Namespace::new("team").ok()))
    }

    #[tokio::test]
    async fn a_request_carries_token_and_namespace_and_the_answer_comes_back() {
        let (listener, client) = client().await;
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";
        let (asked, answer) = tokio::join!(serve_once(listener, answer), client.send(Call::get("/v1/functions")));
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"abc"[..]));
        assert!(asked.starts_with("GET /v1/functions HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("authorization: Bearer rl_x\r\n"), "{asked}");
        assert!(asked.contains("runlet-namespace: team\r\n"), "{asked}");
    }

    #[tokio::test]
    async fn a_cut_answer_is_an_error() {
        let (listener, client) = client().await;
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\nabc";
        let (_, answer) = tokio::join!(serve_once(listener, answer), client.send(Call::get("/")));
        assert!(matches!(answer, Err(ClientError::Broken { .. })), "{answer:?}");
    }

    #[tokio::test]
    async fn an_answer_that_comes_before_the_body_was_taken_is_still_read() {
        for _ in 0..8 {
            let (listener, client) = client().await;
            // The listener's stream is dropped with most of the body unread: that resets the connection.
            let answer = "HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
            let call = Call::put("/v1/functions/f").body(vec![0; 8 << 20]);
            let (_, answer) = tokio::join!(serve_once(listener, answer), client.send(call));
            assert_eq!(answer.expect("an answer").status, StatusCode::PAYLOAD_TOO_LARGE);
        }
    }

    #[tokio::test]
    async fn nobody_there_is_told_apart() {
        let client = Client::new(Host::Unix("/nonexistent/runlet.sock".into()), None, None);
        match client.send(Call::get("/")).await {
            Err(ClientError::Connect { source, .. }) => assert_eq!(source.kind(), io::ErrorKind::NotFound),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_token_that_no_header_can_carry_is_refused_without_showing_it() {
        let host = Host::Unix("/nonexistent/runlet.sock".into());
        let client = Client::new(host, Some(TokenSecret::from_text("rl_\nx")), None);
        let error = client.send(Call::get("/")).await.expect_err("refused");
        assert!(matches!(error, ClientError::BadHeader(_)));
        assert!(!format!("{error:?}").contains("rl_"));
    }
}
