//! What a caller names to be run: a function, and perhaps which revision of it.

use std::fmt;
use std::str::FromStr;

use crate::name::{AliasName, BadName, FunctionName, RevisionDigest};

/// `NAME`, `NAME@ALIAS` or `NAME@sha256:...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The function.
    pub function: FunctionName,
    /// Which revision of it.
    pub which: Which,
}

/// Which revision of a function is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The current one.
    Current,
    /// One of those that this alias points at.
    Alias(AliasName),
    /// This one.
    Revision(RevisionDigest),
}

impl FromStr for Target {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let Some((function, which)) = text.split_once('@') else {
            return Ok(Self { function: text.parse()?, which: Which::Current });
        };
        let which =
            if which.starts_with("sha256:") { Which::Revision(which.parse()?) } else { Which::Alias(which.parse()?) };
        Ok(Self { function: function.parse()?, which })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.which {
            Which::Current => write!(f, "{}", self.function),
            Which::Alias(alias) => write!(f, "{}@{alias}", self.function),
            Which::Revision(digest) => write!(f, "{}@{digest}", self.function),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_name_and_perhaps_an_alias_or_a_revision() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for text in ["f".to_owned(), "f@live".to_owned(), format!("f@{digest}")] {
            assert_eq!(text.parse::<Target>().map(|target| target.to_string()), Ok(text));
        }
        for text in ["", "@live", "f@", "f@Live", "f@a@b", "f@sha256:00", "f/x"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
