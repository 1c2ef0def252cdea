//! Peers of the edge: certificates of an authority of our own, clients that speak TLS and both versions of HTTP, attackers.
//!
//! The clients are Python programs of `tests/edge` with pinned packages, which are installed once below `target`.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::host::{Builder, TestHost};

/// The tables of a host that speaks TLS with the files `cert` and `key`.
const TLS_TABLE: &str = "[tls]\ncert = \"BASE/cert\"\nkey = \"BASE/key\"\n";

/// An authority and a certificate that it has signed for this machine.
#[derive(Debug)]
pub(crate) struct Authority {
    dir: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let authority = Self { dir: tempfile::tempdir().expect("a directory") };
        authority.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout ca.key -out ca -subj /CN=test");
        std::fs::write(authority.path("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").expect("written");
        authority.issue();
        authority
    }

    /// A new certificate with a new key.
    pub(crate) fn issue(&self) {
        self.openssl(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key -out request -subj /CN=localhost",
        );
        self.openssl("x509 -req -in request -CA ca -CAkey ca.key -CAcreateserial -days 2 -extfile names -out cert");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("openssl has made it")
    }

    /// A host that speaks TLS with its certificate, which only root can read.
    pub(crate) fn host(&self) -> Builder {
        TestHost::builder().table(TLS_TABLE).file("cert", self.read("cert")).file("key", self.read("key"))
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(self.dir.path()).output();
        let output = output.expect("openssl is there");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A program of `tests/edge`, with its packages.
pub(crate) fn peer(program: &str) -> Command {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/edge");
    let packages = Path::new(env!("CARGO_TARGET_TMPDIR")).join("edge");
    let installed = Command::new(here.join("install.sh")).arg(&packages).status().expect("bash is there");
    assert!(installed.success(), "tests/edge/install.sh failed");
    let mut command = Command::new("/usr/bin/python3");
    command.arg(here.join(program)).env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Runs a peer with this stdin; what it prints is JSON.
pub(crate) fn hear(command: &mut Command, stdin: &[u8]) -> Value {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 is there");
    child.stdin.take().expect("it is piped").write_all(stdin).expect("it reads all of it");
    let output = child.wait_with_output().expect("it is our child");
    assert!(output.status.success(), "{command:?} failed");
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

/// One request over TLS, by the version of HTTP that `alpn` names.
pub(crate) fn talk(ca: &Path, alpn: &str, to: SocketAddr, line: (&str, &str), headers: &[&str], body: &[u8]) -> Value {
    let (method, path) = line;
    let mut command = peer("talk.py");
    command.arg(ca).args([alpn, method]).arg(format!("https://localhost:{}{path}", to.port())).args(headers);
    hear(&mut command, body)
}
