//! What a caller wants to be so before something is changed: that nobody else has changed it since he looked.

/// A condition on the version that is there. Versions are opaque texts; a thing that is not there has none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Precondition {
    /// None: the last writer wins.
    #[default]
    None,
    /// It is there.
    Exists,
    /// It is not there.
    Absent,
    /// It is there in one of these versions.
    OneOf(Vec<String>),
}

impl Precondition {
    /// Whether it holds where `version` is what is there.
    #[must_use]
    pub fn holds(&self, version: Option<&str>) -> bool {
        match (self, version) {
            (Self::None, _) | (Self::Exists, Some(_)) | (Self::Absent, None) => true,
            (Self::OneOf(wanted), Some(have)) => wanted.iter().any(|want| want == have),
            (Self::Exists | Self::OneOf(_), None) | (Self::Absent, Some(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_condition_holds_where_it_should() {
        let one = Precondition::OneOf(vec!["a".to_owned(), "b".to_owned()]);
        let table = |have| {
            [&Precondition::None, &Precondition::Exists, &Precondition::Absent, &one].map(|wanted| wanted.holds(have))
        };
        assert_eq!(table(None), [true, false, true, false]);
        assert_eq!(table(Some("b")), [true, true, false, true]);
        assert_eq!(table(Some("c")), [true, true, false, false]);
    }
}
