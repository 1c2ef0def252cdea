//! `runlet logs`: the two output streams of an execution, byte for byte.
//!
//! A stream is read by offset, so that following it goes on where it was after the server has been away.

use std::cell::Cell;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use runlet_core::engine::Stream;
use runlet_core::id::{ExecutionId, InvocationId};
use runlet_core::invocation::InvocationState;
use runlet_core::store::execution::{Execution, Invocation};
use serde_json::json;

use super::errors::CliError;
use super::id::RunId;
use super::session::Session;
use super::{output, words};
use crate::client::{Answer, Call};

/// How long a server may be away while its output is followed.
const RETRY_FOR: Duration = Duration::from_secs(30);
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Between two looks at something that cannot be waited for.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// What `logs` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
stdout of the function goes to stdout, its stderr to stderr, byte for byte.
With --json each piece is a line {\"stream\",\"offset\",\"text\"}, or \"base64\" where it is not UTF-8.

Examples:
  runlet logs exe_06fcy5swzhp7d2w7k3s6cdyj1m
  runlet logs -f inv_06fcy5swzhp7d2w7k3s6cdyj1m --stream stderr")]
pub(crate) struct LogsArgs {
    /// exe_..., or inv_... for its latest execution
    #[arg(value_name = "ID")]
    id: RunId,
    /// Follow the output until the end; with inv_..., wait for it to start
    #[arg(short, long)]
    follow: bool,
    /// Which stream
    #[arg(long, value_enum, default_value_t = Streams::Both)]
    stream: Streams,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Streams {
    Stdout,
    Stderr,
    Both,
}

/// Prints what is on record, or follows it.
pub(crate) async fn run(session: &Session, args: &LogsArgs) -> Result<(), CliError> {
    let reader = Reader { session, follow: args.follow, reached: Cell::new(false), told: Cell::new(false) };
    let (id, invocation) = match args.id {
        RunId::Execution(id) => (id, None),
        RunId::Invocation(id) => (reader.latest(id, None).await?, Some(id)),
    };
    let mut id = id;
    loop {
        let execution = reader.print(id, args.stream).await?;
        let Some(invocation) = invocation.filter(|_| args.follow) else {
            reader.conclude(&execution);
            return Ok(());
        };
        // An execution that was lost is followed by another one of the same invocation.
        match reader.latest(invocation, Some(id)).await {
            Ok(next) => id = next,
            Err(CliError::NothingRan { .. }) => {
                reader.conclude(&execution);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
}

/// Reads from one server.
struct Reader<'a> {
    session: &'a Session,
    follow: bool,
    /// Whether the server has answered once: one that was never there is an error, not an outage.
    reached: Cell<bool>,
    /// Whether it was said that the server is away.
    told: Cell<bool>,
}

/// A piece of a stream.
struct Piece {
    bytes: Bytes,
    next: u64,
    end: bool,
}

impl Reader<'_> {
    /// The latest execution of an invocation that is not `known`; when following, waits for one to start.
    async fn latest(&self, id: InvocationId, known: Option<ExecutionId>) -> Result<ExecutionId, CliError> {
        loop {
            let call = || Call::get(format!("/v1/invocations/{id}"));
            let invocation: Invocation =
                self.patiently(async || self.session.ask_for(call(), "invocation").await).await?;
            match invocation.executions.last() {
                Some(last) if Some(*last) != known => return Ok(*last),
                _ if self.follow && !invocation.state.is_terminal() => tokio::time::sleep(LOOK_PAUSE).await,
                _ => return Err(nothing_ran(id, invocation.state)),
            }
        }
    }

    /// Prints the wanted streams of an execution to their end (or, not following, to what is there); returns its record.
    async fn print(&self, id: ExecutionId, streams: Streams) -> Result<Execution, CliError> {
        // Asked first: an unknown id is told once, not once per stream.
        self.record(id).await?;
        match streams {
            Streams::Stdout => self.copy(id, Stream::Stdout).await?,
            Streams::Stderr => self.copy(id, Stream::Stderr).await?,
            Streams::Both => {
                tokio::try_join!(self.copy(id, Stream::Stdout), self.copy(id, Stream::Stderr))?;
            }
        }
        self.record(id).await
    }

    async fn record(&self, id: ExecutionId) -> Result<Execution, CliError> {
        let call = || Call::get(format!("/v1/executions/{id}"));
        self.patiently(async || self.session.ask_for(call(), "execution").await).await
    }

    async fn copy(&self, id: ExecutionId, stream: Stream) -> Result<(), CliError> {
        let mut offset = 0;
        loop {
            let asked = Instant::now();
            let piece = self.patiently(async || self.read(id, stream, offset).await).await?;
            if !piece.bytes.is_empty() {
                self.show(stream, offset, &piece.bytes)?;
            } else if !self.follow {
                return Ok(());
            }
            if piece.end {
                return Ok(());
            }
            // A server that answers at once with nothing, as one does that is stopping, is not asked in a tight loop.
            if piece.next == offset && asked.elapsed() < LOOK_PAUSE {
                tokio::time::sleep(LOOK_PAUSE).await;
            }
            offset = piece.next;
        }
    }

    async fn read(&self, id: ExecutionId, stream: Stream, offset: u64) -> Result<Piece, CliError> {
        let call = Call::get(format!("/v1/executions/{id}/logs"))
            .query("stream", stream.as_str())
            .query("offset", offset)
            .query_if("wait", self.follow.then_some("10s"));
        let answer = self.session.ask(call).await?;
        let next = header(&answer, "runlet-log-next")?;
        let end = header(&answer, "runlet-log-end")?;
        Ok(Piece { bytes: answer.body, next, end })
    }

    fn show(&self, stream: Stream, offset: u64, bytes: &[u8]) -> Result<(), CliError> {
        if self.session.json {
            let (key, value) = match std::str::from_utf8(bytes) {
                Ok(text) => ("text", text.to_owned()),
                Err(_) => ("base64", STANDARD.encode(bytes)),
            };
            return output::line(&json!({ "stream": stream, "offset": offset, key: value }).to_string());
        }
        match stream {
            Stream::Stdout => output::bytes(bytes),
            Stream::Stderr => {
                output::bytes_to_stderr(bytes);
                Ok(())
            }
        }
    }

    /// Asks again while following and the server is away, for [`RETRY_FOR`] at most.
    async fn patiently<T>(&self, ask: impl AsyncFn() -> Result<T, CliError>) -> Result<T, CliError> {
        let mut away: Option<Instant> = None;
        loop {
            match ask().await {
                Err(error) if self.follow && self.reached.get() && error.is_passing() => {
                    if away.get_or_insert_with(Instant::now).elapsed() >= RETRY_FOR {
                        return Err(error);
                    }
                    if !self.told.replace(true) {
                        output::note("the server does not answer; trying again for 30 s");
                    }
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                answer => {
                    self.reached.set(true);
                    self.told.set(false);
                    return answer;
                }
            }
        }
    }

    /// Says on stderr what stdout cannot: whether there is more to come, or was.
    fn conclude(&self, execution: &Execution) {
        let id = execution.id;
        if execution.log_dropped > 0 {
            let size = words::size(execution.log_dropped);
            output::note(&format!("{id}: {size} of output were over the limit and are not kept"));
        }
        if self.follow {
            output::note(&format!("{id} {}", words::state(execution.state, execution.outcome.as_ref())));
        } else if !execution.state.is_terminal() {
            output::note(&format!("{id} is {}: `runlet logs -f {id}` follows it", execution.state));
        }
    }
}

fn nothing_ran(id: InvocationId, state: InvocationState) -> CliError {
    CliError::NothingRan { id: id.to_string(), state: state.to_string() }
}

fn header<T: std::str::FromStr>(answer: &Answer, name: &'static str) -> Result<T, CliError> {
    let value = answer.headers.get(name).and_then(|value| value.to_str().ok()?.parse().ok());
    let why = || format!("its header {name} is missing or wrong");
    value.ok_or_else(|| CliError::StrangeAnswer { status: answer.status.as_u16(), why: why() })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::cli::args::Global;

    const ID: &str = "exe_00000000000000000000000000";

    fn record(state: &str) -> String {
        let body = json!({ "execution": {
            "id": ID, "invocation": "inv_00000000000000000000000000", "namespace": "default", "function": "f",
            "revision": format!("sha256:{}", "0".repeat(64)), "cause": "http", "attempt": 1, "state": state,
            "reset": "warm", "usage": {}, "log_bytes": 0, "log_dropped": 0, "created_at": "2026-01-01T00:00:00Z",
        }})
        .to_string();
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    fn piece(text: &str, next: u64, end: bool) -> String {
        let length = text.len();
        format!(
            "HTTP/1.1 200 OK\r\nrunlet-log-next: {next}\r\nrunlet-log-end: {end}\r\ncontent-length: {length}\r\n\r\n{text}"
        )
    }

    /// Takes one request, answers it (an empty answer: hangs up), and returns its path.
    async fn answer(mut stream: TcpStream, answer: &str) -> String {
        let mut asked = Vec::new();
        while !asked.windows(4).any(|four| four == b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut asked).await.expect("readable"), 0);
        }
        stream.write_all(answer.as_bytes()).await.expect("writable");
        String::from_utf8_lossy(&asked).split(' ').nth(1).expect("a path").to_owned()
    }

    async fn follow(script: Vec<String>) -> (Vec<String>, Result<(), CliError>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let host = Some(format!("http://{}", listener.local_addr().expect("bound")));
        let global = Global { host, token: None, token_file: None, namespace: None, data_dir: None, json: false };
        let session = Session::open(&global).expect("a good address");
        let args = LogsArgs { id: ID.parse().expect("an id"), follow: true, stream: Streams::Stdout };
        let server = async {
            let mut asked = Vec::new();
            for text in &script {
                let (stream, _) = listener.accept().await.expect("a client connects");
                asked.push(answer(stream, text).await);
            }
            asked
        };
        tokio::join!(server, run(&session, &args))
    }

    #[tokio::test]
    async fn following_goes_on_at_the_same_byte_after_the_server_was_away() {
        let away = String::new();
        let script =
            vec![record("running"), piece("one\n", 4, false), away, piece("two\n", 8, true), record("succeeded")];
        let (asked, end) = follow(script).await;
        end.expect("the end was reached");
        let logs = |offset| format!("/v1/executions/{ID}/logs?stream=stdout&offset={offset}&wait=10s");
        let record = format!("/v1/executions/{ID}");
        assert_eq!(asked, [record.clone(), logs(0), logs(4), logs(4), record]);
    }

    #[tokio::test]
    async fn a_server_that_was_never_there_is_told_at_once() {
        let host = Some("/nonexistent/runlet.sock".to_owned());
        let session = Session::open(&Global {
            host,
            token: None,
            token_file: None,
            namespace: None,
            data_dir: None,
            json: false,
        });
        let id = "inv_00000000000000000000000000".parse().expect("an id");
        let end = run(&session.expect("good"), &LogsArgs { id, follow: true, stream: Streams::Both }).await;
        assert!(matches!(end, Err(CliError::Client(_))), "{end:?}");
    }

    #[tokio::test]
    async fn a_piece_without_its_headers_is_not_understood() {
        let (_, end) = follow(vec![record("running"), "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into()]).await;
        assert!(matches!(end, Err(CliError::StrangeAnswer { .. })), "{end:?}");
    }
}
