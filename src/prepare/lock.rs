//! One server per data directory.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::PrepareError;

/// Takes the lock; it is held until the file is dropped or the process ends, however it ends.
pub(super) fn take(data_dir: &Path) -> Result<File, PrepareError> {
    let path = data_dir.join("lock");
    let failed = |what| PrepareError::at(what, &path);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed("open"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).map_err(failed("read"))?;
            return Err(PrepareError::Rule(format!(
                "another server (process {}) uses the data directory {}; stop it, or choose another data_dir",
                pid.trim(),
                data_dir.display()
            )));
        }
        Err(TryLockError::Error(error)) => return Err(failed("lock")(error)),
    }
    file.set_len(0).map_err(failed("write"))?;
    file.rewind().map_err(failed("write"))?;
    writeln!(file, "{}", std::process::id()).map_err(failed("write"))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_server_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = take(dir.path()).expect("it is free");
        let error = take(dir.path()).expect_err("it is taken").to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        assert!(take(dir.path()).is_ok());
    }
}
