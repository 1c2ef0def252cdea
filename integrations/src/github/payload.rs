//! The few fields of GitHub's payloads that rules and records need. Everything else is the function's.

use runlet_triggers::webhook::Refusal;
use serde::Deserialize;

use crate::loose::{First, Number, Object, Text, parse};

/// Structs whose fields may all be absent.
macro_rules! loose {
    ($($(#[$doc:meta])* $name:ident { $($(#[$attr:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(default)]
        pub(super) struct $name {
            $($(#[$attr])* pub(super) $field: $type,)*
        }
    )*};
}

loose! {
    /// A payload.
    Payload {
        action: Text,
        #[serde(rename = "ref")]
        reference: Text,
        ref_type: Text,
        before: Text,
        after: Text,
        sha: Text,
        state: Text,
        compare: Text,
        target_url: Text,
        commit_oid: Text,
        repository: Object<Repository>,
        sender: Object<User>,
        pusher: Object<Pusher>,
        pull_request: Object<Pull>,
        issue: Object<Issue>,
        comment: Object<Comment>,
        review: Object<Comment>,
        release: Object<Release>,
        deployment: Object<Deployment>,
        deployment_status: Object<DeploymentStatus>,
        check_run: Object<CheckRun>,
        check_suite: Object<Run>,
        workflow_run: Object<Run>,
        workflow_job: Object<Run>,
        merge_group: Object<MergeGroup>,
        build: Object<Build>,
    }
    Repository {
        full_name: Text,
    }
    User {
        login: Text,
    }
    Pusher {
        name: Text,
    }
    Pull {
        number: Number,
        user: Object<User>,
        head: Object<End>,
        base: Object<End>,
        html_url: Text,
    }
    /// One end of a pull request.
    End {
        #[serde(rename = "ref")]
        reference: Text,
        sha: Text,
    }
    Issue {
        number: Number,
        user: Object<User>,
        html_url: Text,
        pull_request: Object<Nothing>,
    }
    /// An object that only has to be there.
    Nothing {}
    /// A comment or a review.
    Comment {
        commit_id: Text,
        user: Object<User>,
        state: Text,
        html_url: Text,
    }
    Release {
        tag_name: Text,
        author: Object<User>,
        html_url: Text,
    }
    Deployment {
        sha: Text,
        creator: Object<User>,
    }
    DeploymentStatus {
        state: Text,
        target_url: Text,
        creator: Object<User>,
    }
    CheckRun {
        head_sha: Text,
        status: Text,
        conclusion: Text,
        html_url: Text,
        check_suite: Object<Run>,
        pull_requests: First<Pull>,
    }
    /// A check suite, or a workflow's run or job.
    Run {
        head_branch: Text,
        head_sha: Text,
        before: Text,
        status: Text,
        conclusion: Text,
        html_url: Text,
        actor: Object<User>,
        pull_requests: First<Pull>,
    }
    MergeGroup {
        head_sha: Text,
        head_ref: Text,
        base_ref: Text,
        base_sha: Text,
    }
    /// A build of pages.
    Build {
        commit: Text,
        status: Text,
    }
}

impl Payload {
    /// Reads the fields out of a JSON object.
    pub(super) fn parse(json: &[u8]) -> Result<Self, Refusal> {
        let Object(payload) = parse(json)?;
        payload.ok_or_else(|| Refusal::Body("the payload is JSON, but no object".to_owned()))
    }
}
