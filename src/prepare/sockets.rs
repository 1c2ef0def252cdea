//! The listening sockets: bound by root, served by the unprivileged server.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, umask};

use super::PrepareError;
use crate::config::Config;

/// The kernel takes no longer path for a unix socket.
const LONGEST_PATH: usize = 107;

/// Bound and not yet served.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// On the network.
    pub tcp: TcpListener,
    /// On this machine, for root.
    pub unix: UnixListener,
    /// Its path.
    pub path: PathBuf,
    /// The URL of the first.
    pub url: String,
}

/// Binds both, and writes the address of the first into `<data_dir>/address`. The caller holds the lock of the data directory.
pub(super) fn bind(config: &Config) -> Result<Sockets, PrepareError> {
    let tcp = TcpListener::bind(config.listen).map_err(|error| {
        PrepareError::Rule(format!(
            "could not listen on {}: {error}; choose another address by --listen or the key `listen`",
            config.listen
        ))
    })?;
    let address =
        tcp.local_addr().map_err(|error| PrepareError::Rule(format!("could not read the address: {error}")))?;
    let path = config.data_dir.join("runlet.sock");
    let unix = bind_unix(&path)?;
    for result in [tcp.set_nonblocking(true), unix.set_nonblocking(true)] {
        result.map_err(|error| PrepareError::Rule(format!("could not prepare a socket: {error}")))?;
    }
    let note = config.data_dir.join("address");
    let scheme = if config.tls().is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{address}");
    fs::write(&note, format!("{url}\n")).map_err(PrepareError::at("write", &note))?;
    Ok(Sockets { tcp, unix, path, url })
}

fn bind_unix(path: &Path) -> Result<UnixListener, PrepareError> {
    use std::os::unix::ffi::OsStrExt as _;
    if path.as_os_str().as_bytes().len() > LONGEST_PATH {
        return Err(PrepareError::Rule(format!(
            "the path of the unix socket, {}, is longer than {LONGEST_PATH} bytes, which the kernel does not take; \
             choose a shorter data_dir",
            path.display()
        )));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(PrepareError::at("remove the stale socket", path)(error));
        }
        _ => {}
    }
    // The mode must be right from the first moment: there is one thread, so the mask changes under nobody else.
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    umask(before);
    bound.map_err(PrepareError::at("bind the unix socket", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_unix_socket_is_for_its_owner_and_replaces_a_stale_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("runlet.sock");
        for _ in 0..2 {
            let socket = bind_unix(&path).expect("bound");
            assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
            drop(socket);
        }
        let long = dir.path().join("x".repeat(120));
        assert!(bind_unix(&long).is_err_and(|error| error.to_string().contains("107 bytes")));
    }
}
