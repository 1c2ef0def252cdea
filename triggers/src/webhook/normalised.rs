//! An event in the one shape that all forges share: code sees it as `cause.normalised`.

use serde::Serialize;

/// What is known of an event, in the words of no forge in particular. Everything but `provider` and `kind` may be
/// absent. The names of the fields are a contract with users' code: `docs/guide/webhooks.md` tells what each means.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Normalised {
    /// Who sent it: `github`, `gitlab`.
    pub provider: &'static str,
    /// `push`, `tag`, `pull_request`, `review`, `comment`, `issue`, `pipeline`, `job`, `release`, `deployment`, or the
    /// sender's own name of the event.
    pub kind: String,
    /// The sender's own name of the event, as the rules see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// What was done, in the sender's word: `opened`, `merge`, ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// How it stands or ended, in the sender's word: `success`, `failed`, ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// `owner/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The full ref, for example `refs/heads/main`; of a pull request, that of the branch it comes from.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The branch, of a pull request the one it goes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The commit; absent where the push removed the ref.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha: Option<String>,
    /// The commit that the ref pointed at before; absent where the push made the ref.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Login of the person behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Number of the pull request or merge request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<u64>,
    /// Number of the issue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issue: Option<u64>,
    /// A page that shows what it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}
