//! The system user that the server becomes.

use std::process::{Command, Stdio};

use nix::unistd::User;

use super::PrepareError;

/// Ids from here on are handed to sandboxes: a server with one of them would share its rights with a sandbox.
const SANDBOX_IDS: u32 = 0x7000_0000;

/// A user and its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// The account of `name`, made where it is missing.
pub(super) fn find_or_create(name: &str) -> Result<Account, PrepareError> {
    if let Some(account) = find(name)? {
        return Ok(account);
    }
    let output = Command::new("useradd")
        .args(["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"])
        .args(["--shell", "/usr/sbin/nologin", "--", name])
        .stdin(Stdio::null())
        .output();
    // Somebody else may have made it in the meantime: what counts is whether it is there now.
    if let Some(account) = find(name)? {
        return Ok(account);
    }
    let reason = match output {
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    Err(PrepareError::Rule(format!(
        "there is no user `{name}` and useradd could not make it ({reason}); make an unprivileged system user of that name, \
         or name another one by the key `user`"
    )))
}

fn find(name: &str) -> Result<Option<Account>, PrepareError> {
    let user = User::from_name(name)
        .map_err(|error| PrepareError::Rule(format!("could not look up the user `{name}`: {error}")))?;
    match user {
        None => Ok(None),
        Some(user) if user.uid.is_root() || user.gid.as_raw() == 0 => Err(PrepareError::Rule(format!(
            "the user `{name}` has the rights of root (uid {}, gid {}); name an unprivileged one by the key `user`",
            user.uid, user.gid
        ))),
        Some(user) if user.uid.as_raw() >= SANDBOX_IDS || user.gid.as_raw() >= SANDBOX_IDS => {
            Err(PrepareError::Rule(format!(
                "the user `{name}` has an id that sandboxes use (uid {}, gid {}); name one with ids below {SANDBOX_IDS}",
                user.uid, user.gid
            )))
        }
        Some(user) => Ok(Some(Account { uid: user.uid.as_raw(), gid: user.gid.as_raw() })),
    }
}
