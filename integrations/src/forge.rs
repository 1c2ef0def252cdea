//! What all forges share: refs, commits, and the words of the normalised shape.

use runlet_triggers::webhook::Normalised;

const BRANCH: &str = "refs/heads/";
const TAG: &str = "refs/tags/";

/// What became of a ref or a thing, in the words that all forges share.
pub(crate) trait Facts {
    /// Takes over a full ref; its branch or tag follows from it.
    fn at(&mut self, reference: Option<String>);
    /// A branch by its name.
    fn at_branch(&mut self, name: Option<String>);
    /// A tag by its name.
    fn at_tag(&mut self, name: Option<String>);
    /// A pull request's two branches: where it comes from, and where it goes.
    fn between(&mut self, head: Option<String>, base: Option<String>);
}

impl Facts for Normalised {
    fn at(&mut self, reference: Option<String>) {
        let part = |prefix| reference.as_deref().and_then(|text| text.strip_prefix(prefix)).map(str::to_owned);
        (self.branch, self.tag) = (part(BRANCH), part(TAG));
        self.reference = reference;
    }

    fn at_branch(&mut self, name: Option<String>) {
        self.at(name.map(|name| format!("{BRANCH}{name}")));
    }

    fn at_tag(&mut self, name: Option<String>) {
        self.at(name.map(|name| format!("{TAG}{name}")));
    }

    fn between(&mut self, head: Option<String>, base: Option<String>) {
        self.reference = head.map(|head| format!("{BRANCH}{head}"));
        self.branch = base;
    }
}

/// A commit's id; forges write zeros where there is none.
pub(crate) fn commit(sha: Option<String>) -> Option<String> {
    sha.filter(|sha| sha.bytes().any(|byte| byte != b'0'))
}
