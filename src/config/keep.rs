//! What is kept, for how long and where: the keys `retention` and `spill`, and the `[namespaces.NAME]` tables.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use runlet_core::store::retention::Retention;
use runlet_core::unit::{ByteSize, Span};

use super::Config;
use super::error::Source;

/// A body of a database that this server has for itself goes to a file from this size on.
const USUAL: ByteSize = ByteSize(256 << 10);

/// Less would be a file for nearly everything.
const LEAST: ByteSize = ByteSize(4 << 10);

/// Days of history; `None`: all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Days(pub Option<u32>);

impl FromStr for Days {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const DAY: Duration = Duration::from_secs(86_400);
        if text == "off" {
            return Ok(Self(None));
        }
        let wrong = || {
            format!("`{text}` is no number of days; write \"{}d\" or more, or \"off\" to keep all", Retention::LEAST)
        };
        let Span(span) = text.parse().map_err(|_| wrong())?;
        let days = u32::try_from(span.as_secs() / DAY.as_secs()).map_err(|_| wrong())?;
        let whole = DAY.checked_mul(days) == Some(span);
        if whole && days >= Retention::LEAST { Ok(Self(Some(days))) } else { Err(wrong()) }
    }
}

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(days) => write!(f, "{days}d"),
            None => f.write_str("off"),
        }
    }
}

/// From which size on bodies and output go to files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpillOver {
    /// 256 KiB with a private Postgres; never where the database is somebody else's, for other servers may share it.
    Usual,
    /// Never.
    Off,
    /// From this size on.
    Over(ByteSize),
}

impl SpillOver {
    /// The bound, for a server that is `alone` with its database or not.
    pub(crate) fn over(self, alone: bool) -> Option<u64> {
        match self {
            Self::Usual => alone.then_some(USUAL.0),
            Self::Off => None,
            Self::Over(size) => Some(size.0),
        }
    }
}

impl FromStr for SpillOver {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Usual),
            "off" => Ok(Self::Off),
            _ => match text.parse::<ByteSize>() {
                Ok(size) if size >= LEAST => Ok(Self::Over(size)),
                Ok(size) => Err(format!("{size} is too little; write at least \"{LEAST}\", \"auto\" or \"off\"")),
                Err(error) => Err(format!("{error}; or write \"auto\" or \"off\"")),
            },
        }
    }
}

impl fmt::Display for SpillOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usual => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::Over(size) => size.fmt(f),
        }
    }
}

/// A `[namespaces.NAME]` table.
#[derive(Debug, Clone)]
pub(crate) struct NamespaceEntry {
    /// Days of history that it keeps; `None`: as many as others.
    pub retention: Option<Days>,
    /// Its share of the host when others want it too; `None`: 1, as others.
    pub weight: Option<u32>,
    /// Where it is written.
    pub source: Source,
}

impl Config {
    /// The shares of the host that were set.
    pub(crate) fn weights(&self) -> std::collections::HashMap<runlet_core::name::Namespace, u32> {
        self.namespaces.iter().filter_map(|(name, entry)| Some((name.clone(), entry.weight?))).collect()
    }

    /// How long history is kept, of whom.
    pub(crate) fn retention(&self) -> Retention {
        let own = |entry: &NamespaceEntry| entry.retention.map(|days| days.0);
        let namespaces = self.namespaces.iter().filter_map(|(name, entry)| Some((name.clone(), own(entry)?))).collect();
        Retention { usual: self.retention.0, namespaces }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_whole_and_enough() {
        assert_eq!("30d".parse(), Ok(Days(Some(30))));
        assert_eq!("48h".parse(), Ok(Days(Some(2))));
        assert_eq!("off".parse(), Ok(Days(None)));
        for text in ["1d", "36h", "0d", "30", "", "99999999999d"] {
            assert!(text.parse::<Days>().is_err(), "{text}");
        }
    }

    #[test]
    fn files_are_the_default_only_where_nobody_else_looks_for_them() {
        assert_eq!(SpillOver::Usual.over(true), Some(256 << 10));
        assert_eq!(SpillOver::Usual.over(false), None);
        assert_eq!("8KiB".parse::<SpillOver>().map(|spill| spill.over(false)), Ok(Some(8192)));
        assert_eq!(SpillOver::Off.over(true), None);
    }
}
