//! Revisions as people type them: `current`, a digest, or the first characters of one.

use std::fmt;
use std::str::FromStr;

use runlet_core::name::{FunctionName, RevisionDigest};
use runlet_core::store::function::revision::Revision;

use super::errors::CliError;
use super::page::{Listing, Rows};
use super::session::Session;
use crate::client::Call;

/// Fewer characters than this name too many revisions.
const LEAST: usize = 4;

/// A revision that somebody named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The current one.
    Current,
    /// The one whose digest begins with these hex characters.
    Prefix(String),
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "current" {
            return Ok(Self::Current);
        }
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let is_hex = hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if is_hex && (LEAST..=64).contains(&hex.len()) {
            Ok(Self::Prefix(hex.to_owned()))
        } else {
            Err(format!("write `current`, a revision, or its first {LEAST} or more characters of 0-9 a-f"))
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Current => f.write_str("current"),
            Self::Prefix(hex) => f.write_str(hex),
        }
    }
}

/// All revisions of a function, as the server lists them.
pub(crate) async fn list(session: &Session, function: &FunctionName) -> Result<Rows, CliError> {
    let listing = Listing { key: "revisions", cursor: "before" };
    Rows::fetch(session, listing, usize::MAX, || Call::get(format!("/v1/functions/{function}/revisions"))).await
}

/// The one revision of the list that is meant.
pub(crate) fn find(
    wanted: &Wanted,
    function: &FunctionName,
    revisions: &[Revision],
) -> Result<RevisionDigest, CliError> {
    let meant = |revision: &&Revision| match wanted {
        Wanted::Current => revision.current,
        Wanted::Prefix(hex) => revision.revision.hex().starts_with(hex),
    };
    let mut found = revisions.iter().filter(meant);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one.revision.clone()),
        (None, _) => {
            Err(CliError::NoRevision { wanted: wanted.to_string(), function: function.clone(), several: false })
        }
        (Some(_), Some(_)) => {
            Err(CliError::NoRevision { wanted: wanted.to_string(), function: function.clone(), several: true })
        }
    }
}

#[cfg(test)]
mod tests {
    use runlet_core::clock;

    use super::*;

    fn revision(byte: u8, current: bool) -> Revision {
        Revision {
            revision: RevisionDigest::from_sha256(&[byte; 32]),
            current,
            aliases: Vec::new(),
            runtime: "python".to_owned(),
            size: 1,
            created_at: clock::now(),
            deployed_at: None,
        }
    }

    #[test]
    fn a_revision_is_found_by_its_first_characters() {
        let function = FunctionName::new("f").expect("a name");
        let all = [revision(0xab, false), revision(0xac, true)];
        let found = |text: &str| {
            let wanted = text.parse().expect("it is well-formed");
            find(&wanted, &function, &all).map(|digest| digest.short()[..2].to_owned()).ok()
        };
        assert_eq!(found("current").as_deref(), Some("ac"));
        assert_eq!(found("abab").as_deref(), Some("ab"));
        assert_eq!(found("sha256:acacac").as_deref(), Some("ac"));
        assert_eq!(found("ffff"), None);
        for text in ["", "abc", "v1", "ABAB", &"a".repeat(65)] {
            assert!(text.parse::<Wanted>().is_err(), "{text}");
        }
        assert!(find(&Wanted::Prefix("abab".to_owned()), &function, &[all[0].clone(), all[0].clone()]).is_err());
    }
}
