//! The directories of the server.
//!
//! ```text
//! <data_dir>            0711 root   everybody may pass, nobody may look
//!   revisions/          0755 user   unpacked code, read by sandboxes
//!   postgres/           0700 user   the private Postgres
//!   ci/                 0700 root   what jobs of CI systems write; the zygote's
//!   blobs/              0700 user   large bodies and long output
//!   spool/              0700 user   history that waits for the database
//! <run_dir>             0711 root   state of live sandboxes; the zygote's
//! ```

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, chown};

use super::PrepareError;
use super::user::Account;
use crate::config::Config;

/// Where things are.
#[derive(Debug, Clone)]
pub(crate) struct Dirs {
    /// Unpacked revisions.
    pub revisions: PathBuf,
    /// Base of the private Postgres.
    pub postgres: PathBuf,
    /// What leased sandboxes write to disk.
    pub work: PathBuf,
    /// Large bodies and long output.
    pub blobs: PathBuf,
    /// History that waits for the database.
    pub spool: PathBuf,
}

/// Makes what is missing and sets owners and modes.
pub(super) fn make(config: &Config, account: Account) -> Result<Dirs, PrepareError> {
    let root = Account { uid: 0, gid: 0 };
    let below = |name: &str| config.data_dir.join(name);
    let dirs = Dirs {
        revisions: below("revisions"),
        postgres: below("postgres"),
        work: below("ci"),
        blobs: below("blobs"),
        spool: below("spool"),
    };
    own(&config.data_dir, root, 0o711)?;
    own(&config.run_dir, root, 0o711)?;
    own(&dirs.revisions, account, 0o755)?;
    own(&dirs.postgres, account, 0o700)?;
    own(&dirs.work, root, 0o700)?;
    own(&dirs.blobs, account, 0o700)?;
    own(&dirs.spool, account, 0o700)?;
    Ok(dirs)
}

fn own(path: &Path, account: Account, mode: u32) -> Result<(), PrepareError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(PrepareError::at("make the directory", parent))?;
    passable(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(PrepareError::at("make the directory", path)(error));
        }
        _ => {}
    }
    // A link is not followed: whoever made it would choose what is given away below.
    let about = fs::symlink_metadata(path).map_err(PrepareError::at("look at", path))?;
    if !about.is_dir() {
        return Err(PrepareError::Rule(format!("{} is not a directory; move it away", path.display())));
    }
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    chown(path, Some(uid), Some(gid)).map_err(|errno| PrepareError::at("change the owner of", path)(errno.into()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(PrepareError::at("change the mode of", path))
}

/// The server is not root later on: it must be able to pass every directory above its own.
fn passable(path: &Path) -> Result<(), PrepareError> {
    for dir in path.ancestors() {
        let about = fs::metadata(dir).map_err(PrepareError::at("look at", dir))?;
        if about.mode() & 0o001 == 0 {
            return Err(PrepareError::Rule(format!(
                "only its owner can pass the directory {}, so that the unprivileged server could not reach what is below it; \
                 choose a data_dir and run_dir elsewhere, for example /var/lib/runlet, or chmod o+x {}",
                dir.display(),
                dir.display()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_others_cannot_pass_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).expect("changed");
        let below = dir.path().join("a");
        fs::create_dir(&below).expect("made");
        let error = passable(&below).expect_err("others cannot pass").to_string();
        assert!(error.contains(&format!("chmod o+x {}", dir.path().display())), "{error}");
    }
}
