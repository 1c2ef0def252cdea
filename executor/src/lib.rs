//! The executor: the only crate that knows libcontainer and the kernel's isolation.
//!
//! Two halves that share nothing but [`wire`] messages: the server's side ([`host`], in a tokio process without privileges) and
//! the zygote's side ([`zygote`] and its shims, root, single-threaded).

mod cgroup;
pub mod host;
mod init;
pub mod privilege;
mod rootfs;
mod seccomp;
pub mod session;
mod shim;
mod spec;
mod sys;
mod uid_range;
mod wire;
pub mod zygote;
