//! The job's document, as GitLab sent it to the runner: the few fields that concern a driver.
//!
//! Everything is optional and unknown fields are ignored: runners of other versions leave out or add.

use serde::Deserialize;

use super::Mistake;

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Response {
    pub(super) id: Option<u64>,
    pub(super) token: Option<String>,
    pub(super) job_info: Option<Info>,
    pub(super) git_info: Option<Git>,
    pub(super) runner_info: Option<Runner>,
    pub(super) variables: Option<Vec<Variable>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Info {
    pub(super) name: Option<String>,
    pub(super) stage: Option<String>,
    pub(super) pipeline_id: Option<u64>,
    pub(super) project_id: Option<u64>,
    pub(super) project_full_path: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Git {
    /// With the job's token in it.
    pub(super) repo_url: Option<String>,
    pub(super) r#ref: Option<String>,
    pub(super) sha: Option<String>,
    pub(super) protected: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Runner {
    pub(super) timeout: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Variable {
    pub(super) key: String,
    pub(super) value: Option<String>,
    pub(super) masked: bool,
}

impl Response {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Mistake> {
        // The error's own text could quote a value.
        serde_json::from_slice(bytes).map_err(|error| Mistake::Response { line: error.line(), column: error.column() })
    }

    /// The first value of a variable: GitLab's own come before those of a job, which repeat a name to override it.
    pub(super) fn first(&self, key: &str) -> Option<&str> {
        let variables = self.variables.as_deref().unwrap_or_default();
        let found = variables.iter().find(|variable| variable.key == key)?;
        found.value.as_deref().filter(|value| !value.is_empty())
    }

    /// The host that the sources come from, without credentials.
    pub(super) fn host(&self) -> Option<&str> {
        let url = self.git_info.as_ref()?.repo_url.as_deref()?;
        let (_, rest) = url.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let host = authority.rsplit('@').next()?;
        (!host.is_empty()).then_some(host)
    }
}
