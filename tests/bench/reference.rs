//! The reference for warm calls: bare warp in front of four plain Python or Node processes on unix sockets. No isolation, no record.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, mpsc};
use warp::Filter as _;

/// The same work as the function under test: decode, call, encode.
const PYTHON: &str = r#"
import json, socket, struct, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(1)
print("ready", flush=True)
peer, _ = listener.accept()
def handle(event, context):
    return event
while True:
    head = peer.recv(4, socket.MSG_WAITALL)
    if len(head) < 4:
        break
    event = json.loads(peer.recv(struct.unpack("<I", head)[0], socket.MSG_WAITALL))
    body = json.dumps(handle(event, None)).encode()
    peer.sendall(struct.pack("<I", len(body)) + body)
"#;

/// The same for Node.
const NODE: &str = r#"
const handle = async (event, context) => event;
let pending = Buffer.alloc(0);
require("net").createServer((peer) => {
  peer.on("close", () => process.exit());
  peer.on("data", async (piece) => {
    pending = pending.length ? Buffer.concat([pending, piece]) : piece;
    while (pending.length >= 4 && pending.length >= 4 + pending.readUInt32LE(0)) {
      const end = 4 + pending.readUInt32LE(0);
      const event = JSON.parse(pending.toString("utf8", 4, end));
      pending = pending.subarray(end);
      const body = Buffer.from(JSON.stringify(await handle(event, null)));
      const head = Buffer.alloc(4);
      head.writeUInt32LE(body.length);
      peer.write(Buffer.concat([head, body]));
    }
  });
}).listen(process.argv[1], () => console.log("ready"));
"#;

/// What the reference's workers are written in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Language {
    Python,
    Node,
}

impl Language {
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Python, Self::Node].into_iter().find(|language| language.name() == name)
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
        }
    }

    fn command(self) -> Command {
        let (program, args) = match self {
            Self::Python => ("/usr/bin/python3", ["-I", "-c", PYTHON].as_slice()),
            Self::Node => ("node", ["-e", NODE].as_slice()),
        };
        let mut command = Command::new(program);
        command.args(args);
        command
    }
}

/// Number of worker processes.
pub(crate) const WORKERS: usize = 4;

async fn worker(language: Language, directory: &std::path::Path, number: usize) -> anyhow::Result<(Child, UnixStream)> {
    let path: PathBuf = directory.join(format!("{number}.sock"));
    let mut child = language
        .command()
        .arg(&path)
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {}", language.name()))?;
    let mut line = [0; 6];
    child.stdout.as_mut().context("its stdout")?.read_exact(&mut line).await?;
    Ok((child, UnixStream::connect(&path).await?))
}

async fn echo(stream: &mut UnixStream, body: &Bytes) -> std::io::Result<Vec<u8>> {
    let mut message = Vec::with_capacity(body.len() + 4);
    message.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    message.extend_from_slice(body);
    stream.write_all(&message).await?;
    let length = stream.read_u32_le().await?;
    let mut answer = vec![0; length as usize];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// Serves until killed; prints its address.
pub(crate) async fn serve(language: Language) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (give, take) = mpsc::channel(WORKERS);
    let mut children = Vec::new();
    for number in 0..WORKERS {
        let (child, stream) = worker(language, directory.path(), number).await?;
        children.push(child);
        give.send(stream).await?;
    }
    let take = Arc::new(Mutex::new(take));
    let route = warp::path("echo").and(warp::post()).and(warp::body::bytes()).then(move |body: Bytes| {
        let (give, take) = (give.clone(), take.clone());
        async move {
            let Some(mut stream) = take.lock().await.recv().await else { return Vec::new() };
            let answer = echo(&mut stream, &body).await.unwrap_or_default();
            let _ = give.send(stream).await;
            answer
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let service = TowerToHyperService::new(warp::service(route));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service.clone());
        connections.spawn(connection);
    }
}
