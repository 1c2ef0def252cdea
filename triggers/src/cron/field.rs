//! One field of a schedule: lists, ranges, steps and names, as Vixie's cron reads them.
//!
//! It owns the grammar of a field and its limits, and knows nothing of dates.

use std::collections::BTreeSet;

use super::expr::BadExpr;

/// Which field: its name in messages, its limits, its names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// As messages call it.
    pub(super) name: &'static str,
    first: u32,
    last: u32,
    names: &'static [&'static str],
    /// Whether `?` is another way to write `*`.
    question: bool,
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const fn kind(name: &'static str, first: u32, last: u32, names: &'static [&'static str], question: bool) -> Kind {
    Kind { name, first, last, names, question }
}

pub(super) const SECOND: Kind = kind("second", 0, 59, &[], false);
pub(super) const MINUTE: Kind = kind("minute", 0, 59, &[], false);
pub(super) const HOUR: Kind = kind("hour", 0, 23, &[], false);
pub(super) const DAY: Kind = kind("day of month", 1, 31, &[], true);
pub(super) const MONTH: Kind = kind("month", 1, 12, &MONTHS, false);
/// 7 is Sunday, too; [`read`] gives it as 0.
pub(super) const WEEKDAY: Kind = kind("day of week", 0, 7, &DAYS, true);

/// What a field says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    /// Values that match.
    pub(super) values: BTreeSet<u32>,
    /// Whether it begins with `*`.
    pub(super) star: bool,
    /// Whether it leaves nothing out.
    pub(super) all: bool,
}

/// Reads a field.
pub(super) fn read(kind: Kind, text: &str) -> Result<Field, BadExpr> {
    let mut values = BTreeSet::new();
    for item in text.split(',') {
        values.extend(kind.item(text, item)?);
    }
    if kind.last == 7 && values.remove(&7) {
        values.insert(0);
    }
    let size = if kind.last == 7 { 7 } else { (kind.last - kind.first + 1) as usize };
    let all = values.len() == size;
    Ok(Field { values, star: text.starts_with('*') || (kind.question && text == "?"), all })
}

impl Kind {
    fn bad(self, text: &str, why: impl std::fmt::Display) -> BadExpr {
        BadExpr { field: Some(self.name), message: format!("`{text}`: {why}") }
    }

    /// The values of one item of a list.
    fn item(self, text: &str, item: &str) -> Result<impl Iterator<Item = u32> + use<>, BadExpr> {
        let (range, step) = match item.split_once('/') {
            None => (item, None),
            Some((range, step)) => (range, Some(self.step(text, step)?)),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" || (self.question && range == "?") => (self.first, self.last),
            Some((from, to)) => {
                let from = self.value(text, from)?;
                let to = self.value(text, to).map(|to| self.sunday_ends(from, to, range))?;
                (from, to)
            }
            None => {
                let from = self.value(text, range)?;
                // `5/15` is `5-59/15`, as Kubernetes and Debian's newer crons have it.
                (from, if step.is_some() { self.last } else { from })
            }
        };
        if from > to {
            let why = format!(
                "the range `{range}` runs backwards; write two, for example `{from}-{},{}-{to}`",
                self.last, self.first
            );
            return Err(self.bad(text, why));
        }
        let step = step.unwrap_or(1);
        if step > 1 && step > to - from {
            let why = format!("a step of {step} is longer than the range from {from} to {to}: it would never be made");
            return Err(self.bad(text, why));
        }
        Ok((from..=to).step_by(step as usize))
    }

    /// `fri-sun`: where a range ends with the name, Sunday is the last day of the week.
    fn sunday_ends(self, from: u32, to: u32, range: &str) -> u32 {
        let named = self.last == 7 && range.to_ascii_lowercase().ends_with("-sun");
        if named && from > to { 7 } else { to }
    }

    fn step(self, text: &str, step: &str) -> Result<u32, BadExpr> {
        match number(step) {
            Some(0) => Err(self.bad(text, "a step of 0 goes nowhere; write 1 or more behind the /")),
            Some(step) => Ok(step),
            None => Err(self.bad(text, "behind the / stands a whole number, the step")),
        }
    }

    fn value(self, text: &str, value: &str) -> Result<u32, BadExpr> {
        let lower = value.to_ascii_lowercase();
        let named = (0_u32..).zip(self.names).find(|(_, name)| **name == lower);
        if let Some((nth, _)) = named {
            return Ok(nth + self.first);
        }
        match number(value) {
            Some(number) if (self.first..=self.last).contains(&number) => Ok(number),
            Some(number) => {
                Err(self.bad(text, format!("{number} is out of range; it goes from {} to {}", self.first, self.last)))
            }
            None => Err(self.bad(text, self.what_else(value))),
        }
    }

    fn what_else(self, value: &str) -> String {
        let names = match (self.names.first(), self.names.last()) {
            (Some(first), Some(last)) => format!(", names ({first} to {last})"),
            _ => String::new(),
        };
        if value.is_empty() {
            return format!("a value is missing; write a number from {} to {}", self.first, self.last);
        }
        let shown: String = value.chars().take(40).collect();
        let letters = value.trim_start_matches(|c: char| c.is_ascii_digit()).to_ascii_uppercase();
        if value.contains('#') || matches!(letters.as_str(), "L" | "W" | "LW") {
            return format!(
                "`{shown}` is Quartz's way; L, W and # are not known here, use a function that looks at the date"
            );
        }
        format!(
            "`{shown}` is not understood; write *, numbers from {} to {}{names}, lists with `,`, ranges with `-` and steps with `/`",
            self.first, self.last
        )
    }
}

/// Digits and nothing else, short enough to be meant.
fn number(text: &str) -> Option<u32> {
    let digits = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(kind: Kind, text: &str) -> Vec<u32> {
        read(kind, text).map(|field| field.values.into_iter().collect()).unwrap_or_default()
    }

    #[test]
    fn fields_say_what_vixie_reads_in_them() {
        assert_eq!(values(MINUTE, "5,1-3,20-40/10"), [1, 2, 3, 5, 20, 30, 40]);
        assert_eq!(values(MINUTE, "*/20"), [0, 20, 40]);
        assert_eq!(values(MINUTE, "5/25"), [5, 30, 55]);
        assert_eq!(values(MONTH, "JAN,jun-Aug"), [1, 6, 7, 8]);
        assert_eq!(values(WEEKDAY, "7"), [0]);
        assert_eq!(values(WEEKDAY, "5-7"), [0, 5, 6]);
        assert_eq!(values(WEEKDAY, "fri-sun"), [0, 5, 6]);
        assert_eq!(values(WEEKDAY, "*/2"), [0, 2, 4, 6]);
        assert_eq!(values(WEEKDAY, "sun"), [0]);
    }

    #[test]
    fn a_field_that_leaves_nothing_out_is_all() {
        assert!(read(HOUR, "0-23").is_ok_and(|field| field.all && !field.star));
        assert!(read(WEEKDAY, "1-7").is_ok_and(|field| field.all));
        assert!(read(DAY, "?").is_ok_and(|field| field.all && field.star));
        assert!(read(DAY, "*/2").is_ok_and(|field| !field.all && field.star));
    }
}
