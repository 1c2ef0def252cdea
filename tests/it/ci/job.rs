//! A job as GitLab hands it to the runner, and the variables that come of it.

use std::time::Duration;

use serde_json::{Value, json};

/// common/spec/spec.go `Variable`.
#[derive(Debug, Clone)]
pub(crate) struct Variable {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) file: bool,
    pub(crate) masked: bool,
}

pub(crate) fn variable(key: &str, value: impl Into<String>) -> Variable {
    Variable { key: key.to_owned(), value: value.into(), file: false, masked: false }
}

/// What a test wants of a job.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) id: u64,
    pub(crate) project: u64,
    pub(crate) name: String,
    pub(crate) timeout: Duration,
    /// The job's own variables, above the predefined ones.
    pub(crate) variables: Vec<Variable>,
    /// Steps in their order: `script` first, others (`release`, ...) behind it.
    pub(crate) steps: Vec<(String, Vec<String>)>,
    pub(crate) after_script: Vec<String>,
    /// Paths below the project directory that are kept between jobs.
    pub(crate) cache: Vec<String>,
    /// What `get_sources` fetches; nothing where there is none, as with `GIT_STRATEGY: none`.
    pub(crate) repository: Option<String>,
}

/// The project's path: GitLab's is unique, like its id.
pub(crate) fn project_path(project: u64) -> String {
    format!("group/project-{project}")
}

impl Job {
    /// A job with these lines as its `script`.
    pub(crate) fn new(id: u64, script: &[&str]) -> Self {
        let script = script.iter().map(|line| (*line).to_owned()).collect();
        Self {
            id,
            project: 7,
            name: "build".to_owned(),
            timeout: Duration::from_secs(60),
            variables: Vec::new(),
            steps: vec![("script".to_owned(), script)],
            after_script: Vec::new(),
            cache: Vec::new(),
            repository: None,
        }
    }

    pub(crate) fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub(crate) fn project(mut self, project: u64) -> Self {
        self.project = project;
        self
    }

    pub(crate) fn after(mut self, script: &[&str]) -> Self {
        self.after_script = script.iter().map(|line| (*line).to_owned()).collect();
        self
    }

    pub(crate) fn step(mut self, name: &str, script: &[&str]) -> Self {
        self.steps.push((name.to_owned(), script.iter().map(|line| (*line).to_owned()).collect()));
        self
    }

    pub(crate) fn cache(mut self, path: &str) -> Self {
        self.cache.push(path.to_owned());
        self
    }

    pub(crate) fn set(mut self, key: &str, value: impl Into<String>) -> Self {
        self.variables.push(variable(key, value));
        self
    }

    pub(crate) fn masked(mut self, key: &str, value: &str) -> Self {
        self.variables.push(Variable { masked: true, ..variable(key, value) });
        self
    }

    pub(crate) fn file(mut self, key: &str, value: &str) -> Self {
        self.variables.push(Variable { file: true, ..variable(key, value) });
        self
    }

    /// The last value that a variable of the job was given.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.variables.iter().rev().find(|variable| variable.key == key).map(|variable| variable.value.as_str())
    }

    /// What GitLab puts in front of the job's own variables (docs.gitlab.com/ci/variables/predefined_variables).
    pub(crate) fn all_variables(&self) -> Vec<Variable> {
        let path = project_path(self.project);
        let mut all = vec![
            variable("CI_JOB_ID", self.id.to_string()),
            variable("CI_JOB_URL", self.url()),
            variable("CI_JOB_NAME", &self.name),
            variable("CI_JOB_STAGE", "test"),
            variable("CI_PIPELINE_ID", (self.id + 1_000_000).to_string()),
            variable("CI_PROJECT_ID", self.project.to_string()),
            variable("CI_PROJECT_PATH", path),
            variable("CI_PROJECT_URL", format!("https://gitlab.example/{}", project_path(self.project))),
            variable("CI_COMMIT_SHA", "0123456789abcdef0123456789abcdef01234567"),
            variable("CI_COMMIT_REF_NAME", "main"),
            variable("CI", "true"),
            variable("GITLAB_CI", "true"),
        ];
        all.push(Variable { masked: true, ..variable("CI_JOB_TOKEN", self.token()) });
        all.extend(self.variables.iter().cloned());
        all
    }

    pub(crate) fn url(&self) -> String {
        format!("https://gitlab.example/{}/-/jobs/{}", project_path(self.project), self.id)
    }

    /// The job's token: a secret that nobody may find in the server's books.
    pub(crate) fn token(&self) -> String {
        format!("glcbt-64_job{}-token-of-the-test", self.id)
    }

    /// The sources, with the job's token as GitLab puts it there.
    fn repository_url(&self) -> String {
        format!("https://gitlab-ci-token:{}@gitlab.example/{}.git", self.token(), project_path(self.project))
    }

    /// common/spec/spec.go `Job`: the document that `JOB_RESPONSE_FILE` names.
    pub(crate) fn response(&self) -> Value {
        let variables = self.all_variables();
        let variables: Vec<Value> = variables
            .iter()
            .map(|one| {
                json!({"key": one.key, "value": one.value, "public": !one.masked, "file": one.file, "masked": one.masked, "raw": true})
            })
            .collect();
        let step = |name: &str, script: &[String], when: &str| json!({"name": name, "script": script, "timeout": self.timeout.as_secs(), "when": when, "allow_failure": when == "always"});
        let mut steps: Vec<Value> = self.steps.iter().map(|(name, script)| step(name, script, "on_success")).collect();
        if !self.after_script.is_empty() {
            steps.push(step("after_script", &self.after_script, "always"));
        }
        json!({
            "id": self.id, "token": self.token(), "allow_git_fetch": true,
            "job_info": {"id": self.id, "name": self.name, "stage": "test", "pipeline_id": self.id + 1_000_000, "project_id": self.project,
                "project_name": format!("project-{}", self.project), "project_full_path": project_path(self.project), "namespace_id": 3,
                "root_namespace_id": 3, "organization_id": 1, "instance_id": "x", "instance_uuid": "y", "user_id": 5, "time_in_queue_seconds": 0.5,
                "project_jobs_running_on_instance_runners_count": "0", "queue_size": 0, "queue_depth": 0},
            "git_info": {"repo_url": self.repository_url(), "repo_object_format": "sha1", "ref": "main", "sha": "0123456789abcdef0123456789abcdef01234567",
                "before_sha": "0000000000000000000000000000000000000000", "ref_type": "branch", "refspecs": [], "depth": 20, "protected": true},
            "runner_info": {"uuid": "", "timeout": self.timeout.as_secs()},
            "inputs": null, "variables": variables, "steps": steps, "image": {"name": ""}, "services": null, "artifacts": null,
            "cache": [{"key": "default", "paths": self.cache, "policy": "pull-push"}], "credentials": [], "dependencies": null,
            "features": {"trace_sections": true, "token_mask_prefixes": ["glpat-"], "failure_reasons": ["script_failure"]},
            "policy_options": {"execution_policy_job": false, "policy_name": ""},
        })
    }
}
