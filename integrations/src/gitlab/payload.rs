//! The few fields of GitLab's payloads that rules and records need, and the shape that all forges share.

use runlet_triggers::webhook::Normalised;
use serde::Deserialize;

use crate::forge::{Facts as _, commit};
use crate::loose::{Number, Object, Text, Truth};

/// A payload of a project's, a group's or a system's hook.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Payload {
    object_kind: Text,
    event_name: Text,
    action: Text,
    #[serde(rename = "ref")]
    reference: Text,
    before: Text,
    after: Text,
    before_sha: Text,
    sha: Text,
    /// Of a job: whether its ref is a tag. Of a release: the tag.
    tag: Tag,
    status: Text,
    build_status: Text,
    url: Text,
    commit_url: Text,
    deployable_url: Text,
    user_username: Text,
    user_name: Text,
    user: Object<User>,
    project: Object<Project>,
    path_with_namespace: Text,
    project_path_with_namespace: Text,
    object_attributes: Object<Attributes>,
    merge_request: Object<MergeRequest>,
    issue: Object<Issue>,
    commit: Object<Commit>,
}

/// `tag` is a text in some payloads and says yes or no in others.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "crate::loose::Scalar")]
struct Tag {
    name: Option<String>,
    is: bool,
}

impl From<crate::loose::Scalar> for Tag {
    fn from(scalar: crate::loose::Scalar) -> Self {
        Self { is: scalar.truth == Some(true), name: scalar.text }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct User {
    username: Text,
    name: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Project {
    path_with_namespace: Text,
}

/// `object_attributes`: what the event is about.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Attributes {
    iid: Number,
    action: Text,
    state: Text,
    status: Text,
    url: Text,
    #[serde(rename = "ref")]
    reference: Text,
    tag: Truth,
    sha: Text,
    before_sha: Text,
    source_branch: Text,
    target_branch: Text,
    last_commit: Object<Commit>,
    commit_id: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MergeRequest {
    iid: Number,
    source_branch: Text,
    target_branch: Text,
    last_commit: Object<Commit>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Issue {
    iid: Number,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Commit {
    id: Text,
}

impl Payload {
    /// The name that the payload itself gives to the event.
    pub(super) fn name(&self) -> Option<String> {
        self.object_kind.0.clone().or_else(|| self.event_name.0.clone())
    }

    /// The payload in the shape that all forges share. What it does not know of an event stays absent.
    pub(super) fn normalise(mut self, event: Option<&str>) -> Normalised {
        let user = self.user.0.take().unwrap_or_default();
        let project = self.project.0.take().and_then(|project| project.path_with_namespace.0);
        let top = self.path_with_namespace.0.take().or(self.project_path_with_namespace.0.take());
        let mut out = Normalised {
            provider: "gitlab",
            kind: kind(event),
            event: event.map(str::to_owned),
            action: self.action.0.take(),
            repository: project.or(top),
            ..Normalised::default()
        };
        let pushed = self.user_username.0.take().or(self.user_name.0.take());
        out.author = user.username.0.or(user.name.0);
        match out.kind.as_str() {
            "push" | "tag" => {
                out.at(self.reference.0.take());
                (out.before, out.sha) = (commit(self.before.0.take()), commit(self.after.0.take()));
                out.author = pushed.or(out.author.take());
            }
            "job" => self.job(&mut out),
            "deployment" => self.deployment(&mut out),
            "release" => {
                out.at_tag(self.tag.name.take());
                (out.sha, out.url) = (self.commit.0.take().and_then(|commit| commit.id.0), self.url.0.take());
            }
            _ => self.attributes(&mut out),
        }
        out
    }

    fn job(self, out: &mut Normalised) {
        at(out, self.reference.0, self.tag.is);
        (out.sha, out.before) = (self.sha.0, commit(self.before_sha.0));
        out.status = self.build_status.0;
    }

    fn deployment(self, out: &mut Normalised) {
        (out.status, out.url) = (self.status.0, self.deployable_url.0);
        // The payload has the commit's short id and its page, whose address ends with the long one.
        let last = self.commit_url.0.as_deref().and_then(|url| url.rsplit('/').next());
        out.sha = last
            .filter(|sha| matches!(sha.len(), 40 | 64) && sha.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .map(str::to_owned);
    }

    /// Issues, merge requests, comments, pipelines and whatever else comes with `object_attributes`.
    fn attributes(self, out: &mut Normalised) {
        let about = self.object_attributes.0.unwrap_or_default();
        out.action = about.action.0.or(out.action.take());
        out.url = about.url.0.or(self.url.0);
        match out.kind.as_str() {
            "pull_request" => {
                out.between(about.source_branch.0, about.target_branch.0);
                out.sha = about.last_commit.0.and_then(|commit| commit.id.0);
                (out.pull_request, out.status) = (about.iid.0, about.state.0);
                return;
            }
            "pipeline" => {
                at(out, about.reference.0, about.tag.0 == Some(true));
                (out.sha, out.before, out.status) = (about.sha.0, commit(about.before_sha.0), about.status.0);
                out.pull_request = self.merge_request.0.and_then(|request| request.iid.0);
                return;
            }
            "issue" => (out.issue, out.status) = (about.iid.0, about.state.0),
            "comment" => out.sha = about.commit_id.0,
            _ => {}
        }
        if let Some(request) = self.merge_request.0 {
            out.between(request.source_branch.0, request.target_branch.0);
            out.sha = request.last_commit.0.and_then(|commit| commit.id.0).or(out.sha.take());
            out.pull_request = request.iid.0;
        }
        out.issue = self.issue.0.and_then(|issue| issue.iid.0).or(out.issue);
    }
}

/// Pipelines and jobs name a branch or a tag, or the full ref of a merge request.
fn at(out: &mut Normalised, name: Option<String>, tag: bool) {
    match name {
        Some(full) if full.starts_with("refs/") => out.at(Some(full)),
        name if tag => out.at_tag(name),
        name => out.at_branch(name),
    }
}

/// The word of the shape for an event.
fn kind(event: Option<&str>) -> String {
    let word = match event {
        Some("tag_push") => "tag",
        Some("merge_request") => "pull_request",
        Some("note" | "confidential_note") => "comment",
        Some("issue" | "confidential_issue" | "work_item") => "issue",
        Some("build" | "job") => "job",
        Some(other) => other,
        None => "unknown",
    };
    word.to_owned()
}
