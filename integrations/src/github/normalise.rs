//! GitHub's payloads in the shape that all forges share.

use runlet_triggers::webhook::Normalised;

use super::payload::{
    CheckRun, Comment, Deployment, DeploymentStatus, Issue, MergeGroup, Payload, Pull, Release, Run, User,
};
use crate::forge::{Facts as _, commit};
use crate::loose::Object;

impl Payload {
    /// The payload in the shape that all forges share. What it does not know of an event stays absent.
    pub(super) fn normalise(self, event: Option<&str>) -> Normalised {
        let pusher = self.pusher.0.and_then(|pusher| pusher.name.0);
        let mut out = Normalised {
            provider: "github",
            event: event.map(str::to_owned),
            action: self.action.0,
            repository: self.repository.0.and_then(|repository| repository.full_name.0),
            author: login(self.sender).or(pusher),
            ..Normalised::default()
        };
        match event {
            Some("push") => {
                out.at(self.reference.0);
                (out.before, out.sha, out.url) = (commit(self.before.0), commit(self.after.0), self.compare.0);
            }
            Some("create" | "delete") => match self.ref_type.0.as_deref() {
                Some("branch") => out.at_branch(self.reference.0),
                Some("tag") => out.at_tag(self.reference.0),
                _ => {}
            },
            Some("workflow_dispatch") => out.at(self.reference.0),
            Some("code_scanning_alert") => {
                out.at(self.reference.0);
                out.sha = commit(self.commit_oid.0);
            }
            Some("status") => (out.sha, out.status, out.url) = (self.sha.0, self.state.0, self.target_url.0),
            Some("page_build") => {
                let build = self.build.0.unwrap_or_default();
                (out.sha, out.status) = (build.commit.0, build.status.0);
            }
            _ => {}
        }
        // Most events carry what they are about as an object; where there are several, the later ones say it closer.
        take(self.deployment, &mut out, deployment);
        take(self.deployment_status, &mut out, deployment_status);
        take(self.workflow_run, &mut out, run);
        take(self.workflow_job, &mut out, run);
        take(self.check_suite, &mut out, run);
        take(self.check_run, &mut out, check_run);
        take(self.merge_group, &mut out, merge_group);
        take(self.release, &mut out, release);
        take(self.issue, &mut out, issue);
        take(self.pull_request, &mut out, pull);
        take(self.review, &mut out, comment);
        take(self.comment, &mut out, comment);
        out.kind = kind(event, &out);
        out
    }
}

/// The word of the shape for an event.
fn kind(event: Option<&str>, facts: &Normalised) -> String {
    let word = match event {
        Some("push") if facts.tag.is_some() => "tag",
        Some("pull_request" | "pull_request_target") => "pull_request",
        Some("pull_request_review") => "review",
        Some("issue_comment" | "commit_comment" | "pull_request_review_comment") => "comment",
        Some("issues") => "issue",
        Some("workflow_run" | "check_suite") => "pipeline",
        Some("workflow_job" | "check_run") => "job",
        Some("deployment" | "deployment_status") => "deployment",
        Some(other) => other,
        None => "unknown",
    };
    word.to_owned()
}

fn login(user: Object<User>) -> Option<String> {
    user.0.and_then(|user| user.login.0)
}

fn take<T>(part: Object<T>, out: &mut Normalised, read: impl FnOnce(T, &mut Normalised)) {
    if let Some(part) = part.0 {
        read(part, out);
    }
}

/// Puts `value` where there is one.
fn set(place: &mut Option<String>, value: Option<String>) {
    *place = value.or(place.take());
}

fn pull(pull: Pull, out: &mut Normalised) {
    let (head, base) = (pull.head.0.unwrap_or_default(), pull.base.0.unwrap_or_default());
    out.between(head.reference.0, base.reference.0);
    (out.sha, out.pull_request, out.url) = (head.sha.0, pull.number.0, pull.html_url.0);
    set(&mut out.author, login(pull.user));
}

fn issue(issue: Issue, out: &mut Normalised) {
    // GitHub's comments on pull requests come as comments on issues.
    if issue.pull_request.0.is_some() {
        out.pull_request = issue.number.0;
    } else {
        out.issue = issue.number.0;
    }
    out.url = issue.html_url.0;
    set(&mut out.author, login(issue.user));
}

fn comment(comment: Comment, out: &mut Normalised) {
    out.sha = out.sha.take().or(comment.commit_id.0);
    out.status = comment.state.0;
    set(&mut out.url, comment.html_url.0);
    set(&mut out.author, login(comment.user));
}

fn release(release: Release, out: &mut Normalised) {
    out.at_tag(release.tag_name.0);
    out.url = release.html_url.0;
    set(&mut out.author, login(release.author));
}

fn deployment(deployment: Deployment, out: &mut Normalised) {
    out.sha = deployment.sha.0;
    set(&mut out.author, login(deployment.creator));
}

fn deployment_status(status: DeploymentStatus, out: &mut Normalised) {
    (out.status, out.url) = (status.state.0, status.target_url.0);
    set(&mut out.author, login(status.creator));
}

/// GitHub names the tag here, too, as the branch of a run that a tag started: there is no ref to tell them apart by.
fn run(run: Run, out: &mut Normalised) {
    (out.branch, out.sha, out.before) = (run.head_branch.0, run.head_sha.0, commit(run.before.0));
    (out.status, out.url) = (run.conclusion.0.or(run.status.0), run.html_url.0);
    out.pull_request = run.pull_requests.0.and_then(|pull| pull.number.0);
    set(&mut out.author, login(run.actor));
}

fn check_run(check: CheckRun, out: &mut Normalised) {
    take(check.check_suite, out, run);
    set(&mut out.sha, check.head_sha.0);
    (out.status, out.url) = (check.conclusion.0.or(check.status.0), check.html_url.0);
    out.pull_request = check.pull_requests.0.and_then(|pull| pull.number.0).or(out.pull_request);
}

/// A merge queue's try: the branch is the one that is to be merged into.
fn merge_group(group: MergeGroup, out: &mut Normalised) {
    out.at(group.base_ref.0);
    out.reference = group.head_ref.0;
    (out.sha, out.before) = (group.head_sha.0, group.base_sha.0);
}
