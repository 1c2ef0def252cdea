//! The executor: the only crate that knows libcontainer and the kernel's isolation.
//!
//! Two halves that share nothing but [`wire`] messages: the server's side ([`host`], in a tokio process without privileges) and
//! the zygote's side ([`zygote`] and its shims, root, single-threaded).

mod admission;
mod cgroup;
mod children;
mod dispatch;
pub mod engine;
pub mod host;
mod init;
mod lease;
mod meter;
mod output;
mod pool;
pub mod privilege;
pub mod probe;
mod revisions;
mod road;
mod rootfs;
mod seccomp;
pub mod session;
mod shim;
mod spec;
mod stems;
mod sys;
mod uid_range;
mod wire;
mod work;
pub mod zygote;

pub use sys::memory::give_back_program;
