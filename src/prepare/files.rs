//! Small files that are made at the first start and kept: the admin token, the fingerprint key, the server's id.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use runlet_core::token::TokenSecret;

use super::PrepareError;

/// The token in `admin.token`.
pub(super) fn admin_token(data_dir: &Path) -> Result<TokenSecret, PrepareError> {
    let path = data_dir.join("admin.token");
    let bytes = keep(&path, 0o600, || {
        let secret = TokenSecret::generate().map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(format!("{}\n", secret.expose()).into_bytes())
    })?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim();
    if !text.starts_with("rl_") || text.len() < 32 {
        return Err(PrepareError::Rule(format!(
            "{} holds no token; remove it and start again: a new one is made",
            path.display()
        )));
    }
    Ok(TokenSecret::from_text(text))
}

/// The key in `fingerprint.key`.
pub(super) fn fingerprint_key(data_dir: &Path) -> Result<[u8; 32], PrepareError> {
    let path = data_dir.join("fingerprint.key");
    let bytes = keep(&path, 0o600, || random::<32>().map(Vec::from))?;
    bytes.try_into().map_err(|_| {
        PrepareError::Rule(format!(
            "{} does not hold 32 bytes; restore it, or remove it: then fingerprints of the past match nothing",
            path.display()
        ))
    })
}

/// The id in `server.id`.
pub(super) fn server_id(data_dir: &Path) -> Result<String, PrepareError> {
    let path = data_dir.join("server.id");
    let bytes = keep(&path, 0o644, || {
        let hex: String = random::<8>()?.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("srv-{hex}\n").into_bytes())
    })?;
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    if text.is_empty() || text.len() > 64 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(PrepareError::Rule(format!(
            "{} holds no id; restore it, or remove it: then this is a new server to the ledger",
            path.display()
        )));
    }
    Ok(text)
}

/// What is in the file; where there is none, it is made whole or not at all. The caller holds the lock of the directory.
fn keep(path: &Path, mode: u32, make: impl FnOnce() -> std::io::Result<Vec<u8>>) -> Result<Vec<u8>, PrepareError> {
    match fs::read(path) {
        Ok(bytes) => return Ok(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(PrepareError::at("read", path)(error)),
    }
    let new = path.with_extension("new");
    let write = || {
        let bytes = make()?;
        // What a start that was cut off has left.
        if let Err(error) = fs::remove_file(&new)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = File::options().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        Ok(bytes)
    };
    write().map_err(PrepareError::at("write", path))
}

fn random<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_are_made_once_and_private() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = admin_token(dir.path()).expect("made");
        // A start that was cut off leaves this behind; it is no obstacle.
        fs::write(dir.path().join("fingerprint.new"), "x").expect("written");
        let key = fingerprint_key(dir.path()).expect("made");
        let id = server_id(dir.path()).expect("made");
        assert_eq!(admin_token(dir.path()).expect("read").expose(), first.expose());
        assert_eq!(fingerprint_key(dir.path()).expect("read"), key);
        assert_eq!(server_id(dir.path()).expect("read"), id);
        for name in ["admin.token", "fingerprint.key"] {
            let mode = fs::metadata(dir.path().join(name)).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("admin.token"), "").expect("written");
        fs::write(dir.path().join("fingerprint.key"), "short").expect("written");
        assert!(admin_token(dir.path()).is_err_and(|error| error.to_string().contains("holds no token")));
        assert!(fingerprint_key(dir.path()).is_err_and(|error| error.to_string().contains("32 bytes")));
    }
}
