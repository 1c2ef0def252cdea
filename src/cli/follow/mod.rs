//! A command in a leased sandbox, followed from here: stdin and signals go there, output and the end come back.
//!
//! ```text
//!  stdin ─ reader thread ─► Outbound ─► request body ─►  server
//!  signals ───────────────────┘                            │
//!  stdout, stderr ◄─ writer thread ◄─ frames of the answer ◄┘
//! ```
//! stdin and stdout are read and written by threads of their own: a terminal that does not type and a pipe that nobody reads
//! must not hold up a signal.

mod outbound;
mod streams;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::signal::unix::SignalKind;
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::outbound::Outbound;
use self::streams::{Signals, Writer, read_stdin};
use super::errors::{self, CliError};
use super::session::Session;
use crate::client::Call;
use crate::client::duplex::Exchanged;
use crate::frames::{Decoder, End, Kind, MEDIA_TYPE, Start, encode};

/// Frames on their way to the connection.
const ON_THE_WAY: usize = 4;

/// What signals to this process mean for the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnSignal {
    /// They are passed on to it.
    Pass,
    /// They end it, with grace.
    Cancel,
}

/// What is to be followed, and how.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// The lease: its id or its key.
    pub(crate) lease: String,
    /// The command.
    pub(crate) start: Start,
    /// What signals mean.
    pub(crate) on_signal: OnSignal,
    /// When it is cancelled from here.
    pub(crate) until: Option<Instant>,
}

/// How it went.
#[derive(Debug)]
pub(crate) struct Followed {
    /// How the command ended; `None`: the connection broke before the end was known.
    pub(crate) end: Option<End>,
    /// Whether it was ended from here, and why.
    pub(crate) stopped: Option<Stopped>,
}

/// Why a command was ended from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// By a signal.
    Signal,
    /// Its time was over.
    Timeout,
    /// Nobody takes its output any more.
    NoReader,
}

/// Runs a command and follows it to its end.
///
/// # Errors
/// The server refused it or could not be reached.
pub(crate) async fn run(session: &Session, wanted: Wanted) -> Result<Followed, CliError> {
    // Before anything is sent: a signal that comes now must not end this process without a word.
    let kinds: &[SignalKind] = match wanted.on_signal {
        OnSignal::Pass => &Signals::PASSED,
        OnSignal::Cancel => &Signals::ENDING,
    };
    let signals = Signals::listen(kinds).map_err(CliError::Runtime)?;
    let call = Call::post(format!("/v1/leases/{}/exec", wanted.lease)).header("content-type", MEDIA_TYPE);
    let (frames, body) = mpsc::channel(ON_THE_WAY);
    let mut outbound = Outbound::new(frames, wanted.start.stdin.then(read_stdin));
    outbound.say(encode(Kind::Start, &serde_json::to_vec(&wanted.start).unwrap_or_default()));
    outbound.flush().await;
    let talk = Talk { outbound, signals, on_signal: wanted.on_signal, until: wanted.until, stopped: None };
    match session.stream(call, body, async |answer| talk.follow(answer).await).await? {
        Exchanged::Taken(followed) => followed,
        Exchanged::Refused(answer) => {
            errors::check(answer)?;
            Ok(Followed { end: None, stopped: None })
        }
    }
}

/// Both directions of a command that runs.
struct Talk {
    outbound: Outbound,
    signals: Signals,
    on_signal: OnSignal,
    until: Option<Instant>,
    stopped: Option<Stopped>,
}

impl Talk {
    async fn follow(mut self, mut answer: Incoming) -> Result<Followed, CliError> {
        let mut writer = Writer::start();
        let mut decoder = Decoder::default();
        let mut end = None;
        while end.is_none() {
            let bytes: Option<Bytes> = tokio::select! {
                frame = answer.frame() => match frame {
                    Some(Ok(frame)) => frame.into_data().ok(),
                    // The connection broke: what was said until then has been written.
                    Some(Err(_)) | None => break,
                },
                signal = self.signals.next() => { self.signalled(signal); None }
                () = self.outbound.work() => None,
                () = at(self.until) => { self.stop(Stopped::Timeout); None }
                () = writer.broken() => {
                    self.stopped = Some(Stopped::NoReader);
                    return Ok(Followed { end: None, stopped: self.stopped });
                }
            };
            decoder.push(&bytes.unwrap_or_default());
            while let Some((kind, body)) = next(&mut decoder)? {
                match kind {
                    Kind::Stdout | Kind::Stderr => self.write(&mut writer, kind, body).await,
                    Kind::Taken => self.outbound.taken(&body),
                    Kind::End => end = Some(read_end(&body)?),
                    _ => {}
                }
            }
        }
        writer.finish().await;
        Ok(Followed { end, stopped: self.stopped })
    }

    /// Hands output to the writer; signals are heard while it waits for whoever reads.
    async fn write(&mut self, writer: &mut Writer, kind: Kind, body: Bytes) {
        let mut writing = std::pin::pin!(writer.write(kind, body));
        loop {
            tokio::select! {
                () = &mut writing => return,
                signal = self.signals.next() => {
                    let word = self.word(signal);
                    self.outbound.say(word);
                    self.outbound.try_flush();
                }
            }
        }
    }

    fn word(&mut self, signal: SignalKind) -> Bytes {
        match self.on_signal {
            OnSignal::Cancel => {
                self.stopped.get_or_insert(Stopped::Signal);
                encode(Kind::Cancel, b"")
            }
            OnSignal::Pass => {
                let number = u8::try_from(signal.as_raw_value()).unwrap_or(15);
                encode(Kind::Signal, &[number])
            }
        }
    }

    fn signalled(&mut self, signal: SignalKind) {
        let word = self.word(signal);
        self.outbound.say(word);
    }

    fn stop(&mut self, why: Stopped) {
        self.until = None;
        self.stopped.get_or_insert(why);
        self.outbound.say(encode(Kind::Cancel, b""));
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

fn strange(why: String) -> CliError {
    CliError::StrangeAnswer { status: 200, why }
}

fn next(decoder: &mut Decoder) -> Result<Option<(Kind, Bytes)>, CliError> {
    decoder.next().map_err(|error| strange(error.to_string()))
}

fn read_end(body: &[u8]) -> Result<End, CliError> {
    serde_json::from_slice(body).map_err(|error| strange(format!("its end frame is not understood ({error})")))
}
