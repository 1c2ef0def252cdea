//! Giving root up for good.

use std::io;

use nix::sys::prctl;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::sys::process;

/// Becomes `uid`:`gid` without supplementary groups, without capabilities (bounding set included) and without a way back.
///
/// # Errors
/// The errno of the step that failed, with its name; the caller must end then, for it may be half way.
pub fn drop_to(uid: u32, gid: u32) -> io::Result<()> {
    let step = |what: &'static str| move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
    for capability in 0..64 {
        if !process::drop_from_bounding_set(capability).map_err(step("capability bounding set"))? {
            break;
        }
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&[gid]).map_err(io::Error::from).map_err(step("setgroups"))?;
    setresgid(gid, gid, gid).map_err(io::Error::from).map_err(step("setresgid"))?;
    setresuid(uid, uid, uid).map_err(io::Error::from).map_err(step("setresuid"))?;
    process::drop_capabilities().map_err(step("capset"))?;
    prctl::set_no_new_privs().map_err(io::Error::from).map_err(step("no_new_privs"))?;
    Ok(())
}
