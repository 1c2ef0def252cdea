//! Where the server is: the texts that `--host` and `RUNLET_HOST` take.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Name of the server's unix socket in its data directory.
pub(crate) const SOCKET: &str = "runlet.sock";
/// Name of the file beside the socket that holds the server's URL.
const ADDRESS: &str = "address";
/// What fits into the kernel's `sun_path` with its closing NUL.
const SOCKET_PATH_MAX: usize = 107;

/// A server's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// A unix socket.
    Unix(PathBuf),
    /// TCP, without TLS.
    Http {
        /// Name or address; an IPv6 address in brackets.
        name: String,
        /// Port.
        port: u16,
    },
    /// TLS over TCP.
    Https {
        /// Name or address, which the certificate must be for.
        name: String,
        /// Port.
        port: u16,
    },
}

/// A text that names no server.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub(crate) enum BadHost {
    /// The text is not repeated: it may hold a password.
    #[error(
        "the server's address holds a user name or a password: write https://host:port and put the token into RUNLET_TOKEN"
    )]
    Credentials,
    /// Something follows the port.
    #[error("`{0}` goes on behind the port: write http://host:port alone")]
    Path(String),
    /// The port is no port.
    #[error("`{0}` has no valid port: write a number from 1 to 65535, for example http://127.0.0.1:8700")]
    Port(String),
    /// The kernel takes no longer path.
    #[error(
        "`{0}` is longer than the {SOCKET_PATH_MAX} bytes that a unix socket's path may have: use a shorter data directory"
    )]
    TooLong(String),
    /// Anything else.
    #[error("`{0}` names no server: write unix:/path, /path, http://host:port or https://host:port")]
    Unknown(String),
}

impl Host {
    /// The socket that a server with this data directory listens on.
    pub(crate) fn in_data_dir(data_dir: &Path) -> Result<Self, BadHost> {
        Self::unix(data_dir.join(SOCKET))
    }

    /// The `Host` header.
    pub(crate) fn header(&self) -> String {
        match self {
            Self::Unix(_) => "localhost".to_owned(),
            Self::Http { name, port } | Self::Https { name, port } => format!("{name}:{port}"),
        }
    }

    /// The URL that others reach the server by, if it is known: for a unix socket the server wrote it beside the socket.
    pub(crate) fn url(&self) -> Option<String> {
        match self {
            Self::Unix(path) => {
                let text = std::fs::read_to_string(path.with_file_name(ADDRESS)).ok()?;
                let text = text.trim();
                text.parse::<Self>().is_ok().then(|| text.trim_end_matches('/').to_owned())
            }
            Self::Http { .. } | Self::Https { .. } => Some(self.to_string()),
        }
    }

    fn unix(path: PathBuf) -> Result<Self, BadHost> {
        if path.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(BadHost::TooLong(path.display().to_string()));
        }
        Ok(Self::Unix(path))
    }
}

impl FromStr for Host {
    type Err = BadHost;

    fn from_str(text: &str) -> Result<Self, BadHost> {
        let unknown = || BadHost::Unknown(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:").or(text.starts_with('/').then_some(text)) {
            return if path.starts_with('/') { Self::unix(path.into()) } else { Err(unknown()) };
        }
        if text.contains('@') {
            return Err(BadHost::Credentials);
        }
        let (secure, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => return Err(unknown()),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(BadHost::Path(text.to_owned()));
        }
        // The colons of an IPv6 address are inside its brackets.
        let name_end = authority.find(']').map_or(0, |at| at + 1);
        let (name, port) = match authority[name_end..].find(':') {
            Some(at) => authority.split_at(name_end + at),
            None => (authority, if secure { ":443" } else { ":80" }),
        };
        let port = port[1..].parse().ok().filter(|port| *port != 0).ok_or_else(|| BadHost::Port(text.to_owned()))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '[' | ']' | ':' | '%');
        if name.is_empty() || !name.chars().all(plain) {
            return Err(unknown());
        }
        let name = name.to_owned();
        Ok(if secure { Self::Https { name, port } } else { Self::Http { name, port } })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Http { name, port } => write!(f, "http://{name}:{port}"),
            Self::Https { name, port } => write!(f, "https://{name}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(name: &str, port: u16) -> Result<Host, BadHost> {
        Ok(Host::Http { name: name.into(), port })
    }

    #[test]
    fn addresses_are_read() {
        assert_eq!("unix:/run/x.sock".parse(), Ok(Host::Unix("/run/x.sock".into())));
        assert_eq!("/run/x.sock".parse(), Ok(Host::Unix("/run/x.sock".into())));
        assert_eq!("http://127.0.0.1:8700".parse(), http("127.0.0.1", 8700));
        assert_eq!("http://box.lan:8700/".parse(), http("box.lan", 8700));
        assert_eq!("http://box".parse(), http("box", 80));
        assert_eq!("http://[::1]:8700".parse(), http("[::1]", 8700));
        assert_eq!("http://[::1]".parse(), http("[::1]", 80));
        assert_eq!("https://box".parse(), Ok(Host::Https { name: "box".into(), port: 443 }));
        assert_eq!("https://[::1]:8700".parse(), Ok(Host::Https { name: "[::1]".into(), port: 8700 }));
    }

    #[test]
    fn nonsense_is_refused_with_what_to_write() {
        let error = |text: &str| text.parse::<Host>().expect_err(text);
        assert_eq!(error("http://me:hunter2@box:1"), BadHost::Credentials);
        assert!(!error("http://me:hunter2@box:1").to_string().contains("hunter2"));
        assert!(matches!(error("http://box:1/v1"), BadHost::Path(_)));
        for text in
            ["https://box:", "http://box:", "http://box:0", "http://box:65536", "http://box:x", "http://[::1]:-1"]
        {
            assert!(matches!(error(text), BadHost::Port(_)), "{text}");
        }
        for text in ["", "box", "box:8700", "unix:", "unix:run/x", "http://", "http://:80", "ftp://box", "http://a b"] {
            assert!(matches!(error(text), BadHost::Unknown(_)), "{text}");
        }
        assert!(matches!(error(&format!("/{}", "x".repeat(107))), BadHost::TooLong(_)));
    }

    #[test]
    fn the_url_of_a_socket_is_in_the_file_beside_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let host = Host::in_data_dir(dir.path()).expect("a short path");
        assert_eq!(host.url(), None);
        std::fs::write(dir.path().join("address"), "http://127.0.0.1:8700\n").expect("writable");
        assert_eq!(host.url().as_deref(), Some("http://127.0.0.1:8700"));
    }
}
