//! One job's way through the driver: config, prepare, the stages, cleanup.
//!
//! Rules cite GitLab Runner's source by file and function.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Deserialize;

use super::context::{Context, End};
use super::driver::{BUILD_FAILURE, Call, Failure, SYSTEM_FAILURE, Sink};
use super::job::{Job, Variable, project_path, variable};
use super::runner::{Runner, Shared, Verdict};
use super::script::{Places, of_stage};
use crate::wait::{secs, until};

/// executors/custom/api/config.go `ConfigExecOutput`: all fields optional, unknown ones ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Dynamic {
    driver: Driver,
    builds_dir: Option<String>,
    cache_dir: Option<String>,
    builds_dir_is_shared: Option<bool>,
    job_env: BTreeMap<String, String>,
    shell: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Driver {
    name: Option<String>,
    version: Option<String>,
}

/// One job's way through the driver.
pub(super) struct Build {
    runner: Runner,
    job: Job,
    context: Context,
    shared: Arc<Shared>,
    pub(super) calls: Vec<(String, Result<(), Failure>)>,
    pub(super) cleanup: Sink,
    dynamic: Dynamic,
    places: Option<Places>,
    temp: PathBuf,
    /// CI_JOB_STATUS.
    status: &'static str,
}

/// A child's own directory, as Go's `os.MkdirTemp` makes it: 0700, a random name.
fn make_temp(parent: &Path, prefix: &str, user: Option<(u32, u32)>) -> PathBuf {
    let directory = tempfile::Builder::new().prefix(prefix).tempdir_in(parent).expect("it is writable").keep();
    give(&directory, user);
    directory
}

fn give(path: &Path, user: Option<(u32, u32)>) {
    if let Some((user, group)) = user {
        chown(path, Some(user), Some(group)).expect("the test is root");
    }
}

impl Build {
    pub(super) fn new(runner: Runner, job: Job, context: Context, shared: Arc<Shared>) -> Self {
        Self {
            runner,
            job,
            context,
            shared,
            calls: Vec::new(),
            cleanup: Sink::default(),
            dynamic: Dynamic::default(),
            places: None,
            temp: PathBuf::new(),
            status: "running",
        }
    }

    /// common/build.go `Run`, `run` and `setTraceStatus`: cleanup always; then what the error means.
    pub(super) fn run(&mut self) -> Verdict {
        let end = match self.create_executor() {
            Err(failure) => Err(failure),
            Ok(()) => {
                let end = self.execute_script();
                self.clean_up();
                end
            }
        };
        // common/build.go `run`: when the job's own context has ended, that is the reason, whatever the script said.
        match (self.context.end(), end) {
            (Some(End::Deadline), _) | (None, Err(Failure::Ended(End::Deadline))) => Verdict::TimedOut,
            (Some(End::Cancelled), _) | (None, Err(Failure::Ended(End::Cancelled))) => Verdict::Cancelled,
            (None, Ok(())) => Verdict::Success,
            (None, Err(Failure::Build(code))) => Verdict::Failed(code),
            (None, Err(failure)) => Verdict::System(failure),
        }
    }

    fn say(&self, line: &str) {
        self.shared.trace.lock().expect("no panic holds it").extend(format!("{line}\n").bytes());
    }

    /// common/build.go `retryCreateExecutor`: three tries, cleaned up after each that failed; a build failure is final.
    fn create_executor(&mut self) -> Result<(), Failure> {
        let mut last = Failure::System;
        for _ in 0..3 {
            let Err(failure) = self.prepare() else { return Ok(()) };
            self.clean_up();
            if matches!(failure, Failure::Build(_)) {
                return Err(failure);
            }
            if let Some(end) = self.context.end() {
                return Err(Failure::Ended(end));
            }
            self.say(&format!("Preparation failed: {failure:?}\nWill be retried in 3s ..."));
            last = failure;
            let interval = self.context.child(Some(self.runner.retry_interval));
            until("the retry interval is over", secs(60), || interval.end().is_some());
        }
        Err(last)
    }

    /// executors/custom/custom.go `Prepare`: a temporary directory, the job response (0600), config, then prepare.
    fn prepare(&mut self) -> Result<(), Failure> {
        self.temp = make_temp(&self.runner.temp, "custom-executor", self.runner.user);
        let mut options = std::fs::File::options();
        let response = self.temp.join("response.json");
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&response).expect("it is ours");
        serde_json::to_writer(file, &self.job.response()).expect("it is JSON");
        give(&response, self.runner.user);
        self.configure()?;
        // executors/abstract.go `startBuild`, common/build.go `StartBuild`, `ProjectUniqueDir`.
        let settings = &self.runner.settings;
        let builds = self.dynamic.builds_dir.clone().unwrap_or_else(|| settings.builds_dir.clone());
        let cache = self.dynamic.cache_dir.clone().unwrap_or_else(|| settings.cache_dir.clone());
        let slug = project_path(self.job.project);
        let shared = self.dynamic.builds_dir_is_shared.unwrap_or(false);
        let project = if shared { format!("{builds}/runner/0/{slug}") } else { format!("{builds}/{slug}") };
        self.places = Some(Places { builds, project, cache: format!("{cache}/{slug}") });
        let custom = self.runner.settings.custom.clone();
        if custom.prepare_exec.is_empty() {
            return Ok(());
        }
        let context = self.context.child(Some(custom.prepare_timeout()));
        let trace = Arc::clone(&self.shared.trace);
        let args = custom.prepare_args.iter().map(OsString::from).collect();
        self.call("prepare", &custom.prepare_exec, args, &context, Arc::clone(&trace), trace)
    }

    /// executors/custom/custom.go `dynamicConfig` and `InjectInto`: nothing on stdout is nothing to change, else it is JSON.
    fn configure(&mut self) -> Result<(), Failure> {
        let custom = self.runner.settings.custom.clone();
        if custom.config_exec.is_empty() {
            return Ok(());
        }
        let context = self.context.child(Some(custom.config_timeout()));
        let stdout = Sink::default();
        let args = custom.config_args.iter().map(OsString::from).collect();
        let trace = Arc::clone(&self.shared.trace);
        self.call("config", &custom.config_exec, args, &context, Arc::clone(&stdout), trace)?;
        let bytes = std::mem::take(&mut *stdout.lock().expect("no panic holds it"));
        if !bytes.is_empty() {
            self.dynamic = serde_json::from_slice(&bytes).map_err(|error| Failure::BadConfig(error.to_string()))?;
        }
        // executors/custom/custom.go `logStartupMessage`.
        let driver = &self.dynamic.driver;
        match (&driver.name, &driver.version) {
            (None, _) => self.say("Using Custom executor..."),
            (Some(name), None) => self.say(&format!("Using Custom executor with driver {name}...")),
            (Some(name), Some(version)) => self.say(&format!("Using Custom executor with driver {name} {version}...")),
        }
        Ok(())
    }

    /// common/build.go `executeScript` and `executePrepareScripts`.
    fn execute_script(&mut self) -> Result<(), Failure> {
        let job = self.context.clone();
        // A failed prepare_script ends the job there; later failures let the archive and cleanup stages run.
        self.stage("prepare_script", &job)?;
        let mut result = self.attempts("get_sources", "GET_SOURCES_ATTEMPTS");
        for (stage, setting) in
            [("restore_cache", "RESTORE_CACHE_ATTEMPTS"), ("download_artifacts", "ARTIFACT_DOWNLOAD_ATTEMPTS")]
        {
            if result.is_ok() {
                result = self.attempts(stage, setting);
            }
        }
        if result.is_ok() {
            result = self.user_scripts();
        }
        let success = result.is_ok();
        let archive = self.stage(if success { "archive_cache" } else { "archive_cache_on_failure" }, &job);
        let upload =
            self.stage(if success { "upload_artifacts_on_success" } else { "upload_artifacts_on_failure" }, &job);
        // common/build.go `removeFileBasedVariables`: its error is a warning.
        let _ = self.stage("cleanup_file_variables", &job);
        // common/build.go `pickPriorityError`.
        result.and(archive).and(upload)
    }

    /// common/build.go `attemptExecuteStage`: 1 to 10 tries; before the second try of get_sources the worktree is cleared.
    fn attempts(&mut self, stage: &str, setting: &str) -> Result<(), Failure> {
        let tries = self.job.value(setting).and_then(|value| value.parse().ok()).unwrap_or(1).clamp(1, 10);
        let context = self.context.clone();
        let mut last = Ok(());
        for attempt in 0..tries {
            let cleared =
                if attempt == 1 && stage == "get_sources" { self.stage("clear_worktree", &context) } else { Ok(()) };
            last = cleared.and_then(|()| self.stage(stage, &context));
            if last.is_ok() {
                break;
            }
        }
        last
    }

    /// common/build.go `executeUserScripts`: a cancel ends the scripts alone, so that after_script and the rest still run; a
    /// failing after_script is a warning.
    fn user_scripts(&mut self) -> Result<(), Failure> {
        let limit =
            |setting: &str| self.job.value(setting).and_then(|value| value.strip_suffix('s')?.parse().ok()).map(secs);
        let (script_limit, after_limit) = (limit("RUNNER_SCRIPT_TIMEOUT"), limit("RUNNER_AFTER_SCRIPT_TIMEOUT"));
        let scripts = self.context.child(script_limit);
        *self.shared.cancel.lock().expect("no panic holds it") = scripts.clone();
        let steps: Vec<String> = self.job.steps.iter().map(|(name, _)| format!("step_{name}")).collect();
        let mut result = Ok(());
        for step in steps {
            result = self.stage(&step, &scripts);
            if result.is_err() {
                break;
            }
        }
        if let (None, Some(end)) = (self.context.end(), scripts.end()) {
            result = Err(Failure::Ended(end));
        }
        // common/build.go `executeAfterScript` and `runtimeStateAndError`.
        self.status = match &result {
            Ok(()) => "success",
            Err(Failure::Ended(End::Cancelled)) => "canceled",
            Err(Failure::Ended(End::Deadline)) => "timedout",
            Err(_) => "failed",
        };
        let after = self.context.child(Some(after_limit.unwrap_or(secs(300))));
        if let Err(failure) = self.stage("after_script", &after) {
            self.say(&format!("after_script failed, but job will continue unaffected: {failure:?}"));
        }
        result
    }

    /// common/build.go `executeStage` and executors/custom/custom.go `Run`: nothing is called after the end of the context or
    /// where there is nothing to do; the script is 0700 in a directory of its own; `step_script` is called `build_script`.
    fn stage(&mut self, stage: &str, context: &Context) -> Result<(), Failure> {
        if let Some(end) = context.end() {
            return Err(Failure::Ended(end));
        }
        let places = self.places.clone().expect("prepare made them");
        let shell = self.dynamic.shell.clone().or_else(|| self.runner.settings.shell.clone());
        let shell = shell.unwrap_or_else(|| "bash".to_owned());
        let Some(text) = of_stage(&shell, stage, &self.job, &self.variables(), &places) else { return Ok(()) };
        let path = make_temp(&self.temp, "script", self.runner.user).join("script");
        std::fs::write(&path, text).expect("it is ours");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("it is ours");
        give(&path, self.runner.user);
        let name = if stage == "step_script" { "build_script" } else { stage };
        let custom = self.runner.settings.custom.clone();
        let mut args: Vec<OsString> = custom.run_args.iter().map(OsString::from).collect();
        args.extend([path.into_os_string(), name.into()]);
        let trace = Arc::clone(&self.shared.trace);
        self.call(name, &custom.run_exec, args, context, Arc::clone(&trace), trace)
    }

    /// executors/custom/custom.go `Cleanup`: a context of its own, both streams to the runner's log, the result a warning;
    /// the temporary directory goes afterwards.
    fn clean_up(&mut self) {
        let custom = self.runner.settings.custom.clone();
        if !custom.cleanup_exec.is_empty() {
            let context = Context::background().child(Some(custom.cleanup_timeout()));
            let args = custom.cleanup_args.iter().map(OsString::from).collect();
            let log = Arc::clone(&self.cleanup);
            let _ = self.call("cleanup", &custom.cleanup_exec, args, &context, Arc::clone(&log), log);
        }
        std::fs::remove_dir_all(&self.temp).expect("it is ours");
    }

    /// common/build.go `GetAllVariables`: the runner's and the default ones, the job's own above them, and last what a job
    /// cannot override.
    fn variables(&self) -> Vec<Variable> {
        let mut all = Vec::new();
        let given = self.runner.settings.environment.iter().filter_map(|line| line.split_once('='));
        all.extend(given.map(|(key, value)| variable(key, value)));
        let places = self.places.clone();
        let (builds, project) = places.map_or_else(Default::default, |places| (places.builds, places.project));
        all.extend([
            variable("CI_BUILDS_DIR", builds),
            variable("CI_PROJECT_DIR", &project),
            variable("CI_CONCURRENT_ID", "0"),
            variable("CI_CONCURRENT_PROJECT_ID", "0"),
            variable("CI_SERVER", "yes"),
            variable("CI_JOB_STATUS", "running"),
            variable("CI_JOB_TIMEOUT", self.job.timeout.as_secs().to_string()),
        ]);
        all.extend(self.job.all_variables());
        for one in all.iter_mut().filter(|one| one.key == "CI_JOB_STATUS" && self.status != "running") {
            self.status.clone_into(&mut one.value);
        }
        all.push(variable("CI_DISPOSABLE_ENVIRONMENT", "true"));
        all.push(variable("RUNNER_TEMP_PROJECT_DIR", format!("{project}.tmp")));
        all
    }

    /// executors/custom/custom.go `prepareCommand`, command/command.go `New`: the runner's own environment, then what every
    /// call gets, then job_env, then each variable as CUSTOM_ENV_*; of one name the last counts.
    fn environment(&self) -> Vec<(OsString, OsString)> {
        let mut all = self.runner.host_env.clone();
        let in_temp = |name: &str| self.temp.join(name).into_os_string();
        all.extend([
            ("TMPDIR".into(), self.temp.clone().into_os_string()),
            ("BUILD_FAILURE_EXIT_CODE".into(), BUILD_FAILURE.to_string().into()),
            ("SYSTEM_FAILURE_EXIT_CODE".into(), SYSTEM_FAILURE.to_string().into()),
            ("BUILD_EXIT_CODE_FILE".into(), in_temp("build_exit_code")),
            ("JOB_RESPONSE_FILE".into(), in_temp("response.json")),
        ]);
        all.extend(self.dynamic.job_env.iter().map(|(name, value)| (name.into(), value.into())));
        let variables = self.variables().into_iter().chain([variable("CI_JOB_SERVICES", "")]);
        all.extend(variables.map(|one| (format!("CUSTOM_ENV_{}", one.key).into(), one.value.into())));
        all
    }

    fn call(
        &mut self,
        name: &str,
        program: &str,
        args: Vec<OsString>,
        context: &Context,
        stdout: Sink,
        stderr: Sink,
    ) -> Result<(), Failure> {
        until("the test opens the gate", secs(120), || {
            let waits = self.shared.gate.lock().expect("no panic holds it").as_deref() == Some(name);
            self.shared.at_gate.fetch_or(waits, Ordering::SeqCst);
            !waits
        });
        if self.shared.dead.load(Ordering::SeqCst) {
            return Err(Failure::System);
        }
        let env = self.environment();
        let custom = &self.runner.settings.custom;
        let exit_code_file = self.temp.join("build_exit_code");
        let call = Call {
            program,
            args,
            env: &env,
            dir: &self.temp,
            exit_code_file: &exit_code_file,
            stdout,
            stderr,
            graceful: custom.graceful(),
            force: custom.force(),
            user: self.runner.user,
        };
        let shared = &self.shared;
        let result = call.run(context, |pid| {
            *shared.current.lock().expect("no panic holds it") = Some((name.to_owned(), pid));
        });
        *self.shared.current.lock().expect("no panic holds it") = None;
        self.calls.push((name.to_owned(), result.clone()));
        result
    }
}
