use std::collections::BTreeMap;
use std::ffi::OsString;

use serde_json::{Value, json};

use super::*;

type Vars = BTreeMap<&'static str, OsString>;

fn vars(list: &[(&'static str, &str)]) -> Vars {
    list.iter().map(|(name, value)| (*name, OsString::from(value))).collect()
}

fn read(vars: &Vars, response: Option<&Value>) -> Result<Job, Mistake> {
    let bytes = response.map(Value::to_string);
    Job::read(&|name| vars.get(name).cloned(), bytes.as_deref().map(str::as_bytes))
}

fn response() -> Value {
    json!({
        "id": 12, "token": "glcbt-secret",
        "job_info": {"name": "build", "stage": "test", "pipeline_id": 5, "project_id": 7, "project_full_path": "g/p"},
        "git_info": {"repo_url": "https://gitlab-ci-token:glcbt-secret@GitLab.example:8443/g/p.git", "ref": "main", "sha": "abc", "protected": true},
        "runner_info": {"timeout": 1800},
        "variables": [
            {"key": "CI_JOB_URL", "value": "https://gitlab.example/g/p/-/jobs/12", "masked": false},
            {"key": "CI_SERVER_HOST", "value": "gitlab.example", "masked": false},
            {"key": "PASSWORD", "value": "pre-$SUFFIX", "masked": true},
            {"key": "CI_JOB_URL", "value": "https://evil.example/", "masked": false},
            {"key": "NOTHING", "value": null, "masked": true},
        ],
        "image": null, "unknown": {"a": [1]},
    })
}

#[test]
fn the_job_is_who_gitlab_says_it_is() {
    let vars = vars(&[
        ("CUSTOM_ENV_CI_JOB_ID", "99"),
        ("CUSTOM_ENV_CI_PROJECT_ID", "99"),
        ("CUSTOM_ENV_CI_JOB_TIMEOUT", "999999"),
        ("CUSTOM_ENV_PASSWORD", "pre-fix"),
    ]);
    let job = read(&vars, Some(&response())).expect("a job");
    assert_eq!((job.facts.id.as_str(), job.facts.project_id.as_deref()), ("12", Some("7")));
    assert_eq!(job.facts.url.as_deref(), Some("https://gitlab.example/g/p/-/jobs/12"));
    assert_eq!(job.timeout.map(|timeout| timeout.as_secs()), Some(1800));
    assert!(job.key.starts_with("gitlab-") && job.key.ends_with("-12"), "{}", job.key);
    assert!(job.cache.as_deref().is_some_and(|cache| cache.ends_with("-7-protected") && cache.len() <= 64));
    let masks: Vec<&[u8]> = job.masks.iter().map(runlet_core::secret::Secret::expose).collect();
    assert_eq!(masks, [&b"glcbt-secret"[..], b"pre-$SUFFIX", b"pre-fix"]);
    assert!(!format!("{job:?}").contains("glcbt-secret"));
}

#[test]
fn no_two_gitlabs_and_no_two_kinds_of_ref_share() {
    let none = Vars::new();
    let first = read(&none, Some(&response())).expect("a job");
    let change = |pointer: &str, value: Value| {
        let mut document = response();
        *document.pointer_mut(pointer).expect("it is there") = value;
        read(&none, Some(&document)).expect("a job")
    };
    let other = change("/git_info/repo_url", json!("https://x@other.example/g/p.git"));
    assert!(other.key != first.key && other.cache != first.cache);
    assert_ne!(change("/git_info/protected", json!(false)).cache, first.cache);
    assert_eq!(change("/git_info/repo_url", json!("https://gitlab.EXAMPLE:8443/x")).cache, first.cache);
}

#[test]
fn old_runners_say_it_by_variables() {
    let mut known = vars(&[
        ("CUSTOM_ENV_CI_JOB_ID", "3"),
        ("CUSTOM_ENV_CI_PROJECT_ID", "../../x"),
        ("CUSTOM_ENV_CI_JOB_TIMEOUT", "60"),
    ]);
    let job = read(&known, None).expect("a job");
    assert_eq!((job.facts.id.as_str(), job.cache), ("3", None));
    known.insert("CUSTOM_ENV_CI_JOB_ID", "3/../4".into());
    assert!(read(&known, None).is_err());
    assert!(matches!(read(&Vars::new(), None), Err(Mistake::Missing("CUSTOM_ENV_CI_JOB_ID"))));
}

#[test]
fn a_broken_response_is_told_without_its_content() {
    for text in ["", "[]", "{\"id\": \"hunter2\"}", "{\"token\": \"hunter2\"}", "null"] {
        let error = Job::read(&|_| None, Some(text.as_bytes())).expect_err(text);
        assert!(error.to_string().contains("JOB_RESPONSE_FILE") && !error.to_string().contains("hunter2"), "{error}");
    }
}

#[test]
fn exit_codes_are_the_runners() {
    let exits = |list: &[(&'static str, &str)]| {
        let vars = vars(list);
        Exits::read(&|name| vars.get(name).cloned())
    };
    let good =
        exits(&[("BUILD_FAILURE_EXIT_CODE", "77"), ("SYSTEM_FAILURE_EXIT_CODE", "78"), ("BUILD_EXIT_CODE_FILE", "/f")]);
    let good = good.expect("both are there");
    assert_eq!((good.build_failure, good.system_failure, good.code_file), (77, 78, Some("/f".into())));
    for bad in ["", "0", "256", "-1", "x", "1 "] {
        let error = exits(&[("BUILD_FAILURE_EXIT_CODE", bad), ("SYSTEM_FAILURE_EXIT_CODE", "2")]).expect_err(bad);
        assert!(error.to_string().contains("BUILD_FAILURE_EXIT_CODE"), "{error}");
    }
    assert!(matches!(exits(&[]), Err(Mistake::Missing(_))));
    assert_eq!(Exits::system_failure(&|_| None), 2);
}

#[test]
fn wishes_are_read_or_named() {
    let wishes = |list: &[(&'static str, &str)]| {
        let vars = vars(list);
        Wishes::read(&|name| vars.get(name).cloned())
    };
    let got = wishes(&[
        ("CUSTOM_ENV_RUNLET_CI_MEMORY", "2GiB"),
        ("CUSTOM_ENV_RUNLET_CI_CPU", " 0.5 "),
        ("CUSTOM_ENV_RUNLET_CI_TMP", ""),
    ]);
    let got = got.expect("good");
    assert_eq!((got.memory.map(|size| size.0), got.cpu, got.pids, got.tmp), (Some(2 << 30), Some(0.5), None, None));
    for (name, value) in [
        ("CUSTOM_ENV_RUNLET_CI_MEMORY", "lots"),
        ("CUSTOM_ENV_RUNLET_CI_PIDS", "-1"),
        ("CUSTOM_ENV_RUNLET_CI_CPU", "two\n"),
    ] {
        let error = wishes(&[(name, value)]).expect_err(value);
        assert!(error.is_the_jobs() && error.to_string().contains("RUNLET_CI_"), "{error}");
        assert!(!error.to_string().contains('\n'));
    }
}

#[test]
fn scripts_say_what_runs_them() {
    assert_eq!(interpreter("#!/usr/bin/env bash\n\necho"), ["/usr/bin/env", "bash"]);
    assert_eq!(interpreter("#! /bin/sh\n"), ["/bin/sh"]);
    assert_eq!(interpreter("#!/usr/bin/env -S bash -e\r\n"), ["/usr/bin/env", "-S bash -e"]);
    for plain in ["", "echo", "#!", "#!bash\n", "# /bin/sh"] {
        assert_eq!(interpreter(plain), ["bash"], "{plain:?}");
    }
}

#[test]
fn what_comes_after_the_script_decides_nothing() {
    for stage in ["build_script", "step_release", "get_sources", "archive_cache", "upload_artifacts_on_success", ""] {
        assert!(decides(stage), "{stage}");
    }
    for stage in [
        "after_script",
        "cleanup_file_variables",
        "clear_worktree",
        "archive_cache_on_failure",
        "upload_artifacts_on_failure",
    ] {
        assert!(!decides(stage), "{stage}");
    }
}

#[test]
fn config_is_what_the_runner_reads() {
    let document: Value = serde_json::from_str(&config("1.2.3", "gitlab-x-1")).expect("JSON");
    assert_eq!(document["driver"], json!({"name": "runlet", "version": "1.2.3"}));
    assert_eq!(document["job_env"]["RUNLET_CI_LEASE"], "gitlab-x-1");
    assert_eq!((document["builds_dir"].as_str(), document["cache_dir"].as_str()), (Some("/builds"), Some("/cache")));
}
