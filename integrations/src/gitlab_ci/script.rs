//! What a stage and its script say about how to run it.

/// The program that a script is for, with its argument: what its first line says, else bash.
#[must_use]
pub fn interpreter(script: &str) -> Vec<String> {
    let line = script.strip_prefix("#!").and_then(|rest| rest.lines().next()).unwrap_or_default().trim();
    // As the kernel reads it: a path, and all that follows as one argument.
    match line.split_once([' ', '\t']) {
        _ if !line.starts_with('/') => vec!["bash".to_owned()],
        None => vec![line.to_owned()],
        Some((program, argument)) => vec![program.to_owned(), argument.trim().to_owned()],
    }
}

/// Whether a stage's end counts for the end of the job, as the runner counts it.
#[must_use]
pub fn decides(stage: &str) -> bool {
    !matches!(stage, "after_script" | "cleanup_file_variables" | "clear_worktree") && !stage.ends_with("_on_failure")
}
