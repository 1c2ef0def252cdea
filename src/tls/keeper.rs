//! The keeper: a small process that stays root to read two files, and nothing else, whenever the server asks.
//!
//! Private keys belong to root, and a renewal replaces the files while the server has long given root up. The server can ask
//! "read them again" and cannot say which: the paths are the keeper's arguments. It ends when the server is gone.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};

use super::{Files, Pair, TlsError, cannot_read};

/// The hidden role of the binary.
pub(crate) const ROLE: &str = "tls-keeper";
/// Largest file: a path that names something else by mistake is not swallowed whole.
const LARGEST: u64 = 1 << 20;
/// Reading two small files takes no longer than this.
const PATIENCE: Duration = Duration::from_secs(10);

/// First byte of an answer.
const READ: u8 = 0;
const READ_AND_EXPOSED: u8 = 1;
const FAILED: u8 = 2;

/// The server's end.
#[derive(Debug)]
pub(crate) struct Keeper {
    socket: UnixStream,
    child: Child,
}

impl Keeper {
    /// Starts it; to be called by root, before the first thread.
    ///
    /// # Errors
    /// When the process cannot be made.
    pub(crate) fn start(files: &Files) -> Result<Self, TlsError> {
        let start = || {
            let (socket, theirs) = UnixStream::pair()?;
            socket.set_read_timeout(Some(PATIENCE))?;
            let child = Command::new("/proc/self/exe")
                .arg(ROLE)
                .arg(&files.cert)
                .arg(&files.key)
                .env_clear()
                .current_dir("/")
                .stdin(Stdio::from(OwnedFd::from(theirs)))
                .stdout(Stdio::null())
                .spawn()?;
            Ok(Self { socket, child })
        };
        start().map_err(TlsError::Start)
    }

    /// Has the files read. Blocks for as long as that takes.
    ///
    /// # Errors
    /// Which file cannot be read and why.
    pub(crate) fn read(&mut self) -> Result<Pair, TlsError> {
        let mut ask = || {
            self.socket.write_all(b"?")?;
            let mut kind = [0];
            self.socket.read_exact(&mut kind)?;
            let first = receive(&mut self.socket)?;
            let second = if kind == [FAILED] { Vec::new() } else { receive(&mut self.socket)? };
            Ok::<_, io::Error>((kind[0], first, second))
        };
        match ask().map_err(TlsError::Keeper)? {
            (FAILED, why, _) => Err(TlsError::Unreadable(String::from_utf8_lossy(&why).into_owned())),
            (kind, cert, key) => Ok(Pair { cert, key, exposed: kind == READ_AND_EXPOSED }),
        }
    }

    /// Ends it and waits for that.
    pub(crate) fn close(mut self) {
        drop(self.socket);
        let _ = self.child.wait();
    }
}

/// The other end: answers until the server is gone.
pub(crate) fn main(mut paths: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    let (Some(cert), Some(key)) = (paths.next(), paths.next()) else { return ExitCode::FAILURE };
    let files = Files { cert: cert.into(), key: key.into() };
    // What a terminal or an operator sends to all of runlet is for the server; the end of the socket is for us.
    let mut deaf = SigSet::empty();
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM] {
        deaf.add(signal);
    }
    let _ = deaf.thread_block();
    let _ = prctl::set_name(c"runlet-keeper");
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::FAILURE };
    let mut socket = UnixStream::from(socket);
    let mut question = [0];
    while socket.read_exact(&mut question).is_ok() {
        if answer(&mut socket, &files).is_err() {
            break;
        }
    }
    ExitCode::SUCCESS
}

fn answer(socket: &mut UnixStream, files: &Files) -> io::Result<()> {
    let both = || Ok::<_, String>((load("tls.cert", &files.cert)?, load("tls.key", &files.key)?));
    match both() {
        Ok(((cert, _), (key, exposed))) => {
            socket.write_all(&[if exposed { READ_AND_EXPOSED } else { READ }])?;
            send(socket, &cert)?;
            send(socket, &key)
        }
        Err(why) => {
            socket.write_all(&[FAILED])?;
            send(socket, why.as_bytes())
        }
    }
}

/// A file, and whether everybody can read it.
fn load(what: &str, path: &Path) -> Result<(Vec<u8>, bool), String> {
    let read = || {
        let about = std::fs::metadata(path)?;
        if !about.is_file() || about.len() > LARGEST {
            return Err(io::Error::other(format!("it is not a file of at most {LARGEST} bytes")));
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(LARGEST).read_to_end(&mut bytes)?;
        Ok((bytes, about.mode() & 0o004 != 0))
    };
    read().map_err(|error| cannot_read(what, path, error))
}

fn send(socket: &mut UnixStream, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    socket.write_all(&length.to_le_bytes())?;
    socket.write_all(bytes)
}

fn receive(socket: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if u64::from(length) > LARGEST {
        return Err(io::Error::other("an answer that is too long"));
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    socket.read_exact(&mut bytes)?;
    Ok(bytes)
}
