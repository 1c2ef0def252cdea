//! The shell scripts that the runner writes for the stages of a job.
//!
//! Rules cite GitLab Runner's source by file and function. Two things are left out because the host under test has no
//! GitLab: values are not expanded, and where the runner's script calls its own helper program, this one calls `tar`.

use std::fmt::Write as _;

use super::job::{Job, Variable};

/// Where things are for one job, as seen from inside.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) builds: String,
    pub(crate) project: String,
    pub(crate) cache: String,
}

impl Places {
    /// common/build.go `TmpProjectDir`.
    fn temporary(&self, name: &str) -> String {
        format!("{}.tmp/{name}", self.project)
    }
}

/// helpers/shell_escape.go `ShellEscape`: ANSI-C quoting, byte by byte, for all that is not plain.
pub(crate) fn quote(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b",-./@_".contains(&byte);
    if text.is_empty() {
        return "''".to_owned();
    }
    if text.bytes().all(plain) {
        return text.to_owned();
    }
    let mut quoted = "$'".to_owned();
    for byte in text.bytes() {
        match byte {
            b'\'' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            b' '..=b'~' => quoted.push(char::from(byte)),
            _ => write!(quoted, "\\x{byte:02x}").expect("a String takes all"),
        }
    }
    quoted.push('\'');
    quoted
}

/// shells/bash.go `Finish`: SIGTERM ends the script in order, any failing command ends it, and the body runs in a subshell
/// by `eval` with nothing on stdin.
fn finish(shell: &str, body: &str) -> String {
    let trap = "trap 'exit 1' TERM";
    format!(
        "#!/usr/bin/env {shell}\n\n{trap}\n\ncase \"$(set -o)\" in *\"pipefail\"*) set -o pipefail;; esac; set -o errexit\nset +o noclobber\n({trap}; eval {}) < /dev/null\nexit 0\n",
        quote(body)
    )
}

/// shells/bash.go `Variable` and shells/abstract.go `exportVariables`: values in the script itself; a variable of type file
/// becomes a file below the project's temporary directory, and its name that file's path.
fn exports(variables: &[Variable], places: &Places, with_files: bool) -> String {
    let mut text = String::new();
    for variable in variables {
        let key = quote(&variable.key);
        if variable.file {
            let path = places.temporary(&variable.key);
            if with_files {
                let _ = writeln!(text, "mkdir -p \"{}.tmp\"", places.project);
                let _ = writeln!(text, "printf '%s' {} > \"{path}\"", quote(&variable.value));
            }
            let _ = writeln!(text, "export {key}=\"{path}\"");
        } else {
            let _ = writeln!(text, "export {key}={}", quote(&variable.value));
        }
    }
    text
}

/// shells/abstract.go `writeCommands`: each command is shown in green before it runs; of a long one only its first line.
fn commands(lines: &[String]) -> String {
    let mut text = String::new();
    for line in lines.iter().map(|line| line.trim()) {
        let shown = match line.split_once('\n') {
            Some((first, _)) => format!("$ {first} # collapsed multi-line command"),
            None => format!("$ {line}"),
        };
        let _ = writeln!(text, "echo {}\n{line}", quote(&format!("\x1b[32;1m{shown}\x1b[0;m")));
    }
    text
}

/// shells/abstract.go `writeScript`: the script of a stage, or none where there is nothing to do (`ErrSkipBuildStage`).
pub(crate) fn of_stage(shell: &str, stage: &str, job: &Job, variables: &[Variable], places: &Places) -> Option<String> {
    let head = exports(variables, places, true);
    let enter = format!("cd {}\n", quote(&places.project));
    let in_project = |body: String| Some(format!("{head}{enter}{body}"));
    let archive = quote(&format!("{}/default/cache.tar", places.cache));
    let cached: String = job.cache.iter().map(|path| format!(" {}", quote(path))).collect();
    let body = match stage {
        // shells/bash.go `ensurePrepareStageHostnameMessage`, shells/abstract.go `writePrepareScript`.
        "prepare_script" => Some(format!(
            "echo \"Running on $(hostname)...\"\nrm -f \"{}\" \"{}\"\n",
            places.temporary("gitlab_runner_env"),
            places.temporary("masking.db")
        )),
        // shells/abstract.go `writeGetSourcesScript`: variables first (with their files), then the project directory.
        "get_sources" => Some(format!("{head}{}", get_sources(job, places))),
        "clear_worktree" => in_project("git clean -ffdx || true\n".to_owned()),
        // shells/abstract.go `cacheExtractor` and `cacheFile`: the archive is below CACHE_DIR/<project>/<key>.
        "restore_cache" if !job.cache.is_empty() => {
            in_project(format!("if [ -e {archive} ]; then tar -xf {archive}; else echo No cache yet; fi\n"))
        }
        "archive_cache" if !job.cache.is_empty() => in_project(format!(
            "mkdir -p \"$(dirname {archive})\"\ntar -cf {archive}.$CI_JOB_ID{cached}\nmv {archive}.$CI_JOB_ID {archive}\n"
        )),
        "after_script" if !job.after_script.is_empty() => {
            in_project(format!("echo Running after script...\n{}", commands(&job.after_script)))
        }
        // shells/abstract.go `writeCleanupScript`: exports without files, then the files go.
        "cleanup_file_variables" => {
            let files = variables.iter().filter(|variable| variable.file);
            let gone: String = files.map(|one| format!("rm -f \"{}\"\n", places.temporary(&one.key))).collect();
            Some(format!("{}{gone}", exports(variables, places, false)))
        }
        _ => {
            let name = stage.strip_prefix("step_")?;
            let (_, lines) = job.steps.iter().find(|(step, _)| step == name)?;
            in_project(commands(lines))
        }
    };
    body.map(|body| finish(shell, &body))
}

fn get_sources(job: &Job, places: &Places) -> String {
    let project = quote(&places.project);
    match &job.repository {
        None => format!("echo Skipping Git repository setup\nmkdir -p {project}\n"),
        Some(url) => format!(
            "mkdir -p {project}\ncd {project}\ngit init -q .\ngit fetch -q --depth 20 {} +refs/heads/*:refs/remotes/origin/*\ngit checkout -f -q origin/main\n",
            quote(url)
        ),
    }
}
