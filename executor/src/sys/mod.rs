//! The unsafe corner: the few system calls that no safe wrapper offers, each behind a safe function.
//!
//! Nothing else in the workspace may contain `unsafe`.
#![expect(unsafe_code, reason = "this is the one corner that may; every block says why it is sound")]

pub(crate) mod fds;
pub(crate) mod idmap;
pub(crate) mod memory;
pub(crate) mod mount;
pub(crate) mod net;
pub(crate) mod process;
pub(crate) mod watch;
