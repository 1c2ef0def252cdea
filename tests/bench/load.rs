//! A small HTTP/1.1 load generator: `c` connections, each with one request in flight.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// A request to be sent again and again.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    pub(crate) expect: StatusCode,
    /// A header whose value must differ in every request.
    pub(crate) unique: Option<&'static str>,
}

/// What a run gave.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) requests: usize,
}

impl Target {
    pub(crate) async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(self.address).await.context("connect")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        #[expect(clippy::disallowed_methods, reason = "it ends with its connection, and this is a benchmark")]
        tokio::spawn(connection);
        Ok(sender)
    }

    /// A GET of the path.
    pub(crate) async fn get(&self) -> anyhow::Result<Bytes> {
        let mut sender = self.connect().await?;
        let mut request = Request::get(&self.path).header("host", "localhost");
        for (name, value) in self.headers.iter().filter(|(name, _)| name != "content-type") {
            request = request.header(name, value);
        }
        let answer = sender.send_request(request.body(Full::new(Bytes::new()))?).await?;
        Ok(answer.into_body().collect().await?.to_bytes())
    }

    pub(crate) async fn once(&self, sender: &mut SendRequest<Full<Bytes>>, unique: usize) -> anyhow::Result<Bytes> {
        let mut request = Request::post(&self.path).header("host", "localhost");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(name) = self.unique {
            request = request.header(name, format!("{}-{unique}", std::process::id()));
        }
        sender.ready().await?;
        let answer = sender.send_request(request.body(Full::new(self.body.clone()))?).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        anyhow::ensure!(status == self.expect, "{status}: {}", String::from_utf8_lossy(&body));
        Ok(body)
    }

    /// Sends with `connections` connections for `span`.
    pub(crate) async fn run(self: &std::sync::Arc<Self>, connections: usize, span: Duration) -> anyhow::Result<Run> {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static UNIQUE: AtomicUsize = AtomicUsize::new(0);
        let mut tasks = JoinSet::new();
        let start = Instant::now();
        for _ in 0..connections {
            let target = self.clone();
            tasks.spawn(async move {
                let mut sender = target.connect().await?;
                let mut times = Vec::new();
                while start.elapsed() < span {
                    let sent = Instant::now();
                    target.once(&mut sender, UNIQUE.fetch_add(1, Ordering::Relaxed)).await?;
                    times.push(sent.elapsed().as_secs_f64() * 1e3);
                }
                anyhow::Ok(times)
            });
        }
        let mut times = Vec::new();
        while let Some(done) = tasks.join_next().await {
            times.extend(done??);
        }
        let took = start.elapsed().as_secs_f64();
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
        Ok(Run { per_second: times.len() as f64 / took, p50_ms: at(0.5), p99_ms: at(0.99), requests: times.len() })
    }
}
