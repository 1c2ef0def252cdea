//! A small HTTP/1.1 client over std sockets: one connection per request, blocking, nothing hidden.
//!
//! It is the tests' own on purpose: it can send what a decent client library refuses to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

/// Where a server listens.
#[derive(Debug, Clone)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Both kinds of stream, as far as a client cares.
pub(crate) trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

const PATIENCE: Option<Duration> = Some(Duration::from_secs(120));

impl Address {
    /// A fresh connection with a read timeout, so that no test hangs for ever.
    pub(crate) fn connect(&self) -> std::io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(PATIENCE)?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(PATIENCE)?;
                Box::new(stream)
            }
        })
    }
}

/// A request that is being put together.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    address: Address,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    chunked: bool,
}

impl Request {
    pub(crate) fn new(address: Address, method: &str, path: &str) -> Self {
        Self {
            address,
            method: method.to_owned(),
            path: path.to_owned(),
            headers: vec![],
            body: vec![],
            chunked: false,
        }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("Authorization", format!("Bearer {token}"))
    }

    /// The same request without any `Authorization`.
    pub(crate) fn anonymous(mut self) -> Self {
        self.headers.retain(|(name, _)| name != "Authorization");
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.header("Content-Type", "application/json").body(body.to_string())
    }

    /// Sends the body in chunks of 64 KiB, without `Content-Length`.
    pub(crate) fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    fn head(&self) -> String {
        use std::fmt::Write as _;
        let mut head = format!("{} {} HTTP/1.1\r\nHost: runlet\r\nConnection: close\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let length = if self.chunked {
            "Transfer-Encoding: chunked".to_owned()
        } else {
            format!("Content-Length: {}", self.body.len())
        };
        let _ = write!(head, "{length}\r\n\r\n");
        head
    }

    /// Sends and reads the answer. A server may answer before it has read all of the body: that is no error.
    pub(crate) fn try_send(&self) -> std::io::Result<Answer> {
        let mut stream = self.address.connect()?;
        let mut bytes = self.head().into_bytes();
        if self.chunked {
            for chunk in self.body.chunks(64 << 10) {
                bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
                bytes.extend(chunk);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n\r\n");
        } else {
            bytes.extend(&self.body);
        }
        let written = stream.write_all(&bytes);
        Answer::read(&mut stream).or_else(|error| written.and(Err(error)))
    }

    /// Sends; the answer must be one that the API's document knows.
    #[track_caller]
    pub(crate) fn send(&self) -> Answer {
        let answer = self.try_send().unwrap_or_else(|error| panic!("{} {}: {error}", self.method, self.path));
        super::contract::expect_documented(&self.method, &self.path, answer.status, &answer.text());
        answer
    }
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Reads until the server closes the connection.
    pub(crate) fn read(stream: &mut dyn Stream) -> std::io::Result<Self> {
        let mut bytes = Vec::new();
        let end = stream.read_to_end(&mut bytes);
        match Self::parse(&bytes) {
            Some(answer) => Ok(answer),
            None => Err(end
                .err()
                .unwrap_or_else(|| std::io::Error::other(format!("no answer: {:?}", String::from_utf8_lossy(&bytes))))),
        }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let split = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = std::str::from_utf8(bytes.get(..split)?).ok()?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let rest = bytes.get(split + 4..)?;
        if status == 100 {
            return Self::parse(rest);
        }
        let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
        let body = if chunked { unchunk(rest)? } else { rest.to_vec() };
        let length =
            headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok());
        length.is_none_or(|length: usize| length == body.len()).then_some(Self { status, headers, body })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; panics with the body where it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}: {}", self.status, self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The answer itself, if its status is `status`; else a panic that shows it.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// `code` of the problem document.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(rest.get(..line)?).ok()?, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend(rest.get(line + 2..line + 2 + size)?);
        rest = rest.get(line + 2 + size + 2..)?;
    }
}
