//! The exit codes that the runner gives a driver to answer with.

use std::path::PathBuf;

use super::{Env, Mistake, text};

/// What to exit with when nothing says better.
const SYSTEM_FAILURE: u8 = 2;

/// How a driver tells the runner how it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exits {
    /// The job failed.
    pub build_failure: u8,
    /// The driver or its host failed: the runner may try again.
    pub system_failure: u8,
    /// Where the job's own exit code goes, for runners that read it.
    pub code_file: Option<PathBuf>,
}

impl Exits {
    /// Reads them from the environment.
    ///
    /// # Errors
    ///
    /// One of the two codes is missing, or could not be told from success.
    pub fn read(env: Env<'_>) -> Result<Self, Mistake> {
        let system_failure = code(env, "SYSTEM_FAILURE_EXIT_CODE")?;
        let build_failure = code(env, "BUILD_FAILURE_EXIT_CODE")?;
        let code_file = env("BUILD_EXIT_CODE_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
        Ok(Self { build_failure, system_failure, code_file })
    }

    /// The code for a system failure, whatever else the environment lacks.
    #[must_use]
    pub fn system_failure(env: Env<'_>) -> u8 {
        code(env, "SYSTEM_FAILURE_EXIT_CODE").unwrap_or(SYSTEM_FAILURE)
    }
}

fn code(env: Env<'_>, name: &'static str) -> Result<u8, Mistake> {
    if env(name).is_none() {
        return Err(Mistake::Missing(name));
    }
    let code = text(env, name).and_then(|value| value.parse().ok()).filter(|code| *code != 0);
    code.ok_or(Mistake::Bad { name, wanted: "an exit code from 1 to 255" })
}
