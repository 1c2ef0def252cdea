//! How code becomes something that can be run: the archive of a revision, the runner inside the sandbox, and the frames
//! that host and runner exchange. What a sandbox is, and who may run what, is known elsewhere.

pub mod archive;
pub mod frame;
pub mod host;
pub mod launch;

pub use launch::runner_files;
