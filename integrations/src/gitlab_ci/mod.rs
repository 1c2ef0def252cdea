//! GitLab Runner's custom executor: what its calls tell a driver, and what a driver must answer.
//!
//! Pure: the environment comes in as a look-up, files as bytes. Who the job is and what it must hide is taken from the job
//! response, which no variable of a job can change; only where an old runner sends none, from `CUSTOM_ENV_*`.

mod exits;
mod job;
mod response;
mod script;
mod settings;

use std::ffi::OsString;

pub use exits::Exits;
pub use job::{Job, Wishes};
pub use script::{decides, interpreter};
pub use settings::config;

/// Looks up a variable of the driver's environment.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The variable by which `config` tells the later calls the key of the job's lease.
pub const KEY: &str = "RUNLET_CI_LEASE";

/// What is wrong with a call.
#[derive(Debug, thiserror::Error)]
pub enum Mistake {
    /// A variable that GitLab Runner sets is missing.
    #[error(
        "{0} is not set: this command is called by GitLab Runner's custom executor; docs/guide/gitlab.md shows how"
    )]
    Missing(&'static str),
    /// A variable that GitLab Runner sets is not what it should be.
    #[error("{name} is not {wanted}")]
    Bad {
        /// The variable.
        name: &'static str,
        /// What it must be.
        wanted: &'static str,
    },
    /// The file that `JOB_RESPONSE_FILE` names is not the job's document.
    #[error("JOB_RESPONSE_FILE is not the job that GitLab Runner writes there (line {line}, column {column})")]
    Response {
        /// Line of the fault.
        line: usize,
        /// Column of the fault.
        column: usize,
    },
    /// A variable of the job asks for something that cannot be.
    #[error("the variable {name} is `{value}`: write {wanted}")]
    Wish {
        /// The variable.
        name: &'static str,
        /// Its value, cut.
        value: String,
        /// What it must be.
        wanted: &'static str,
    },
}

impl Mistake {
    /// Whether the job's own settings are to blame: trying again changes nothing then.
    #[must_use]
    pub const fn is_the_jobs(&self) -> bool {
        matches!(self, Self::Wish { .. })
    }
}

/// A variable as text; an empty one is not there.
fn text(env: Env<'_>, name: &str) -> Option<String> {
    env(name).and_then(|value| value.into_string().ok()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests;
