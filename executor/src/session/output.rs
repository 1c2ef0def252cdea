//! What a process writes to stdout and stderr: two byte streams, carried to a sink piece by piece and never interpreted.

use std::future::pending;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::Duration;

use bytes::Bytes;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use runlet_core::engine::Stream;
use tokio::net::unix::pipe::Receiver;
use tokio::time::{Instant, timeout_at};

use super::{OutputSink, scratch};

/// The most that an unprivileged process can make a pipe hold: whatever was written before a moment is within so many
/// bytes after it. It bounds the draining of a pipe that somebody keeps filling.
const PIPE_MAX: usize = 1 << 20;

/// Both pipes of a process.
#[derive(Debug)]
pub(crate) struct Output {
    stdout: Pipe,
    stderr: Pipe,
}

#[derive(Debug)]
struct Pipe {
    stream: Stream,
    /// Gone after its end.
    pipe: Option<Receiver>,
}

/// Whether tokio's idea of readiness is believed.
#[derive(Clone, Copy)]
enum Ask {
    /// Yes: costs nothing while nothing comes, and is what `readable` waits for.
    Tokio,
    /// No: tokio learns of bytes only when its driver runs, so "nothing there" is certain from the kernel alone.
    Kernel,
}

impl Output {
    pub(crate) const fn new(stdout: Receiver, stderr: Receiver) -> Self {
        let stdout = Pipe { stream: Stream::Stdout, pipe: Some(stdout) };
        let stderr = Pipe { stream: Stream::Stderr, pipe: Some(stderr) };
        Self { stdout, stderr }
    }

    /// Waits until there is something to read; for ever after both ends.
    pub(crate) async fn readable(&self) {
        tokio::select! {
            () = self.stdout.readable() => (),
            () = self.stderr.readable() => (),
        }
    }

    /// Carries what is ready, at most one piece of each stream, so that neither starves the other.
    pub(crate) async fn pump(&mut self, sink: &mut impl OutputSink) {
        for pipe in [&mut self.stdout, &mut self.stderr] {
            if let Some(bytes) = pipe.read(Ask::Tokio) {
                sink.write(pipe.stream, bytes).await;
            }
        }
    }

    /// Carries all that has been written up to now.
    pub(super) async fn drain(&mut self, sink: &mut impl OutputSink) {
        if !self.has_some() {
            return;
        }
        for pipe in [&mut self.stdout, &mut self.stderr] {
            let mut carried = 0;
            while carried < PIPE_MAX
                && let Some(bytes) = pipe.read(Ask::Kernel)
            {
                carried += bytes.len();
                sink.write(pipe.stream, bytes).await;
            }
        }
    }

    /// Carries everything up to the ends of both streams, or what has come when `patience` is over: some other process may
    /// hold a pipe open.
    pub(crate) async fn finish(&mut self, patience: Duration, sink: &mut impl OutputSink) {
        let limit = Instant::now() + patience;
        while self.is_open() && Instant::now() < limit {
            if timeout_at(limit, self.readable()).await.is_err() {
                break;
            }
            self.pump(sink).await;
        }
        self.drain(sink).await;
    }

    /// Throws away all that has been written up to now; returns how much that was, bytes.
    pub(super) fn discard(&mut self) -> usize {
        let mut all = 0;
        if !self.has_some() {
            return all;
        }
        for pipe in [&mut self.stdout, &mut self.stderr] {
            let mut thrown = 0;
            while thrown < PIPE_MAX
                && let Some(bytes) = pipe.read(Ask::Kernel)
            {
                thrown += bytes.len();
            }
            all += thrown;
        }
        all
    }

    /// Whether something may be there to be read. Asks the kernel, once for both.
    fn has_some(&self) -> bool {
        let (Some(stdout), Some(stderr)) = (&self.stdout.pipe, &self.stderr.pipe) else { return true };
        let mut asked = [stdout.as_fd(), stderr.as_fd()].map(|pipe| PollFd::new(pipe, PollFlags::POLLIN));
        // Who cannot be asked is read.
        poll(&mut asked, PollTimeout::ZERO) != Ok(0)
    }

    const fn is_open(&self) -> bool {
        self.stdout.pipe.is_some() || self.stderr.pipe.is_some()
    }
}

impl Pipe {
    async fn readable(&self) {
        match &self.pipe {
            // An error shows itself when it is read.
            Some(pipe) => drop(pipe.readable().await),
            None => pending().await,
        }
    }

    /// The next piece; `None`: there is none now, or none will ever come.
    fn read(&mut self, ask: Ask) -> Option<Bytes> {
        let pipe = self.pipe.as_ref()?;
        let piece = scratch::with(|buffer| {
            let length = match ask {
                Ask::Tokio => pipe.try_read(buffer),
                Ask::Kernel => nix::unistd::read(pipe.as_raw_fd(), buffer).map_err(io::Error::from),
            }?;
            Ok::<_, io::Error>(Bytes::copy_from_slice(&buffer[..length]))
        });
        match piece {
            Ok(bytes) if !bytes.is_empty() => Some(bytes),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => None,
            Ok(_) | Err(_) => {
                self.pipe = None;
                None
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Write;

    /// Keeps everything.
    #[derive(Debug, Default)]
    pub(in super::super) struct Kept {
        pub(in super::super) stdout: Vec<u8>,
        pub(in super::super) stderr: Vec<u8>,
    }

    impl OutputSink for Kept {
        async fn write(&mut self, stream: Stream, bytes: Bytes) {
            match stream {
                Stream::Stdout => self.stdout.extend_from_slice(&bytes),
                Stream::Stderr => self.stderr.extend_from_slice(&bytes),
            }
        }
    }

    /// The read end for the host, the write end as the code has it.
    pub(in super::super) fn pipe() -> (Receiver, std::fs::File) {
        let (read, write) = nix::unistd::pipe().expect("a pipe");
        let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
        nix::fcntl::fcntl(read.as_raw_fd(), flags).expect("a flag");
        (Receiver::from_owned_fd(read).expect("a pipe in the runtime"), write.into())
    }

    #[tokio::test]
    async fn draining_sees_what_was_just_written() {
        let (stdout, mut out) = pipe();
        let (stderr, mut err) = pipe();
        let mut output = Output::new(stdout, stderr);
        let mut kept = Kept::default();
        // Nothing here gives the driver a chance to run in between.
        for _ in 0..100 {
            out.write_all(b"a\0\xff").expect("room in the pipe");
            err.write_all(b"b").expect("room in the pipe");
            output.drain(&mut kept).await;
        }
        assert_eq!(kept.stdout, b"a\0\xff".repeat(100));
        assert_eq!(kept.stderr, b"b".repeat(100));
    }

    #[tokio::test]
    async fn finishing_reads_to_the_end_but_does_not_wait_for_a_holder() {
        let (stdout, mut out) = pipe();
        let (stderr, held) = pipe();
        let writer = std::thread::spawn(move || out.write_all(&[7; 10_000_000]));
        let mut output = Output::new(stdout, stderr);
        let mut kept = Kept::default();
        output.finish(Duration::from_secs(60), &mut Until { kept: &mut kept, held: Some(held) }).await;
        writer.join().expect("no panic").expect("all written");
        assert_eq!(kept.stdout.len(), 10_000_000);

        let (stdout, mut held) = pipe();
        let (stderr, _) = pipe();
        held.write_all(b"last words").expect("room in the pipe");
        let mut output = Output::new(stdout, stderr);
        let mut kept = Kept::default();
        output.finish(Duration::from_millis(20), &mut kept).await;
        assert_eq!(kept.stdout, b"last words");
    }

    /// Lets go of stderr once all of stdout has come.
    struct Until<'a> {
        kept: &'a mut Kept,
        held: Option<std::fs::File>,
    }

    impl OutputSink for Until<'_> {
        async fn write(&mut self, stream: Stream, bytes: Bytes) {
            self.kept.write(stream, bytes).await;
            if self.kept.stdout.len() == 10_000_000 {
                self.held = None;
            }
        }
    }

    #[tokio::test]
    async fn discarding_leaves_the_stream_usable() {
        let (stdout, mut out) = pipe();
        let (stderr, _err) = pipe();
        let mut output = Output::new(stdout, stderr);
        out.write_all(b"idle chatter").expect("room in the pipe");
        output.discard();
        out.write_all(b"call").expect("room in the pipe");
        output.readable().await;
        let mut kept = Kept::default();
        output.drain(&mut kept).await;
        assert_eq!(kept.stdout, b"call");
    }
}
