//! Who a job is, what it may take, and what it wants hidden.

use std::time::Duration;

use runlet_core::cause::CiJob;
use runlet_core::secret::Secret;
use runlet_core::unit::ByteSize;
use sha2::{Digest as _, Sha256};

use super::response::Response;
use super::{Env, KEY, Mistake, text};

/// Longest part of a wrong value that is shown.
const SHOWN: usize = 40;

/// A job of GitLab's, as its runner tells a driver.
#[derive(Debug)]
pub struct Job {
    /// Facts for people, none of them secret.
    pub facts: CiJob,
    /// The key of its lease.
    pub key: String,
    /// Name of the cache that it shares with the other jobs of its project; `None`: the project is not known.
    pub cache: Option<String>,
    /// How long GitLab lets it run.
    pub timeout: Option<Duration>,
    /// Values that nobody may see in a log.
    pub masks: Vec<Secret>,
}

/// What a job asks for by its variables.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Wishes {
    /// `RUNLET_CI_MEMORY`.
    pub memory: Option<ByteSize>,
    /// `RUNLET_CI_CPU`.
    pub cpu: Option<f64>,
    /// `RUNLET_CI_PIDS`.
    pub pids: Option<u32>,
    /// `RUNLET_CI_TMP`.
    pub tmp: Option<ByteSize>,
}

impl Job {
    /// The job of this call: from the job response where there is one, else from the variables.
    ///
    /// # Errors
    ///
    /// Neither says which job it is, or the response is not readable.
    pub fn read(env: Env<'_>, response: Option<&[u8]>) -> Result<Self, Mistake> {
        match response {
            Some(bytes) => Self::of_response(env, &Response::parse(bytes)?),
            None => Self::of_variables(env),
        }
    }

    /// The key of the job's lease: what `config` told, without a look at the job, or else as `config` made it.
    ///
    /// # Errors
    ///
    /// As [`Job::read`].
    pub fn key(env: Env<'_>, response: impl FnOnce() -> Option<Vec<u8>>) -> Result<String, Mistake> {
        match text(env, KEY) {
            Some(key) => Ok(key),
            None => Self::read(env, response().as_deref()).map(|job| job.key),
        }
    }

    fn of_response(env: Env<'_>, response: &Response) -> Result<Self, Mistake> {
        let id = response.id.ok_or(Mistake::Bad { name: "JOB_RESPONSE_FILE", wanted: "a job with an id" })?;
        let host = response.host().or_else(|| response.first("CI_SERVER_HOST")).unwrap_or("gitlab");
        let (info, git) = (response.job_info.as_ref(), response.git_info.as_ref());
        let project = info.and_then(|info| info.project_id);
        let protected = git
            .and_then(|git| git.protected)
            .unwrap_or_else(|| response.first("CI_COMMIT_REF_PROTECTED") == Some("true"));
        let facts = CiJob {
            provider: "gitlab".to_owned(),
            id: id.to_string(),
            name: info.and_then(|info| info.name.clone()),
            stage: info.and_then(|info| info.stage.clone()),
            project: info
                .and_then(|info| info.project_full_path.clone())
                .or_else(|| response.first("CI_PROJECT_PATH").map(str::to_owned)),
            project_id: project.map(|id| id.to_string()),
            pipeline: info
                .and_then(|info| info.pipeline_id)
                .map(|id| id.to_string())
                .or_else(|| response.first("CI_PIPELINE_ID").map(str::to_owned)),
            r#ref: git.and_then(|git| git.r#ref.clone()),
            sha: git.and_then(|git| git.sha.clone()),
            url: response.first("CI_JOB_URL").map(str::to_owned),
        };
        let timeout = response.runner_info.as_ref().and_then(|runner| runner.timeout).filter(|seconds| *seconds > 0);
        Ok(Self {
            key: key(host, &facts.id),
            cache: project.map(|project| cache(host, &project.to_string(), protected)),
            timeout: timeout.map(Duration::from_secs),
            masks: masks(env, response),
            facts: facts.cut(),
        })
    }

    /// Runners before 14.1 write no job response.
    fn of_variables(env: Env<'_>) -> Result<Self, Mistake> {
        let get = |key: &str| text(env, &format!("CUSTOM_ENV_{key}"));
        let number = |value: String| value.bytes().all(|byte| byte.is_ascii_digit()).then_some(value);
        let id = get("CI_JOB_ID").ok_or(Mistake::Missing("CUSTOM_ENV_CI_JOB_ID"))?;
        let id = number(id).ok_or(Mistake::Bad { name: "CUSTOM_ENV_CI_JOB_ID", wanted: "the number of a job" })?;
        let host = get("CI_SERVER_HOST").unwrap_or_else(|| "gitlab".to_owned());
        let project = get("CI_PROJECT_ID").and_then(number);
        let protected = get("CI_COMMIT_REF_PROTECTED").as_deref() == Some("true");
        let timeout = get("CI_JOB_TIMEOUT").and_then(|seconds| seconds.parse().ok()).filter(|seconds| *seconds > 0);
        let facts = CiJob {
            provider: "gitlab".to_owned(),
            id,
            name: get("CI_JOB_NAME"),
            stage: get("CI_JOB_STAGE"),
            project: get("CI_PROJECT_PATH"),
            project_id: project.clone(),
            pipeline: get("CI_PIPELINE_ID"),
            r#ref: get("CI_COMMIT_REF_NAME"),
            sha: get("CI_COMMIT_SHA"),
            url: get("CI_JOB_URL"),
        };
        Ok(Self {
            key: key(&host, &facts.id),
            cache: project.map(|project| cache(&host, &project, protected)),
            timeout: timeout.map(Duration::from_secs),
            masks: get("CI_JOB_TOKEN").into_iter().map(Secret::new).collect(),
            facts: facts.cut(),
        })
    }
}

impl Wishes {
    /// Reads them from the job's variables, which the runner has expanded.
    ///
    /// # Errors
    ///
    /// A variable is not what it must be.
    pub fn read(env: Env<'_>) -> Result<Self, Mistake> {
        const SIZE: &str = "a size such as 512MiB or 2GiB";
        Ok(Self {
            memory: wish(env, "RUNLET_CI_MEMORY", SIZE)?,
            cpu: wish(env, "RUNLET_CI_CPU", "a number of CPUs such as 0.5 or 2")?,
            pids: wish(env, "RUNLET_CI_PIDS", "a number of processes such as 512")?,
            tmp: wish(env, "RUNLET_CI_TMP", SIZE)?,
        })
    }
}

fn wish<T: std::str::FromStr>(env: Env<'_>, name: &'static str, wanted: &'static str) -> Result<Option<T>, Mistake> {
    let Some(value) = env(&format!("CUSTOM_ENV_{name}")).filter(|value| !value.is_empty()) else { return Ok(None) };
    let value = value.to_string_lossy();
    match value.trim().parse() {
        Ok(value) => Ok(Some(value)),
        Err(_) => {
            let value = value.chars().take(SHOWN).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
            Err(Mistake::Wish { name, value, wanted })
        }
    }
}

/// Twelve digits that tell one GitLab from another, whatever its address is made of.
fn host_digits(host: &str) -> String {
    Sha256::digest(host.to_ascii_lowercase()).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

fn key(host: &str, job: &str) -> String {
    format!("gitlab-{}-{job}", host_digits(host))
}

/// Jobs of protected refs have a cache apart: whoever may push to a branch must not be able to prepare theirs.
fn cache(host: &str, project: &str, protected: bool) -> String {
    let kind = if protected { "protected" } else { "open" };
    format!("gitlab-{}-{project}-{kind}", host_digits(host))
}

/// Masked variables, as GitLab sent them and as the runner has expanded them, and the job's token.
fn masks(env: Env<'_>, response: &Response) -> Vec<Secret> {
    let mut values: Vec<String> = response.token.iter().cloned().collect();
    for variable in response.variables.iter().flatten().filter(|variable| variable.masked) {
        values.extend(variable.value.clone());
        values.extend(text(env, &format!("CUSTOM_ENV_{}", variable.key)));
    }
    values.retain(|value| !value.is_empty());
    values.sort_unstable();
    values.dedup();
    values.into_iter().map(Secret::new).collect()
}
