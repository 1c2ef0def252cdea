//! What the server does while it is still root: its user, its directories, its files, its lock and its sockets.
//!
//! Everything here runs before any thread exists and before the zygote is started. Each step can be run again.

mod dirs;
mod files;
mod lock;
mod sockets;
mod user;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use runlet_core::token::TokenSecret;

use crate::config::Config;

pub(crate) use dirs::Dirs;
pub(crate) use sockets::Sockets;
pub(crate) use user::Account;

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    /// Something could not be done to a path.
    #[error("could not {what} {}: {cause}", path.display())]
    Path {
        /// What was tried.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// Anything else, with the remedy.
    #[error("{0}")]
    Rule(String),
}

impl PrepareError {
    /// Makes an error of `what` being tried on `path`.
    fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::Path { what, path, cause }
    }
}

/// Everything that root made for the server.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Whom the server becomes.
    pub account: Account,
    /// Where things are.
    pub dirs: Dirs,
    /// The token of `admin.token`.
    pub admin: TokenSecret,
    /// Key of the fingerprints of credentials.
    pub fingerprint_key: [u8; 32],
    /// Name of this server in the ledger.
    pub server: String,
    /// Bound, not yet served.
    pub sockets: Sockets,
}

/// Does all of it, in order. The file is the lock of the data directory: to be held as long as anything of the server lives.
///
/// # Errors
/// The first step that failed, with its path and the remedy.
pub(crate) fn prepare(config: &Config) -> Result<(Prepared, File), PrepareError> {
    let account = user::find_or_create(&config.user)?;
    let dirs = dirs::make(config, account)?;
    let lock = lock::take(&config.data_dir)?;
    let admin = files::admin_token(&config.data_dir)?;
    let fingerprint_key = files::fingerprint_key(&config.data_dir)?;
    let server = match &config.server_name {
        Some(name) => name.clone(),
        None => files::server_id(&config.data_dir)?,
    };
    let sockets = sockets::bind(config)?;
    Ok((Prepared { account, dirs, admin, fingerprint_key, server, sockets }, lock))
}
