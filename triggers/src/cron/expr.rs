//! A schedule expression: five fields as Vixie, POSIX and Kubernetes users write them, six with seconds, or `@daily` and its like.
//!
//! It owns what people write and the days and hours that match, on a wall clock without a zone: the arithmetic of the fields is the
//! `cron` crate's, asked as if the wall clock were UTC, so that none of its rules about zones, weekdays or the two day fields are
//! in play. What a wall clock means in a zone is `zone`'s to say.

use std::fmt;

use chrono::{DateTime, NaiveDateTime, Utc};
use cron::Schedule;

use super::field::{self, Field};

/// An expression that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadExpr {
    /// The field; `None` where the expression as a whole is wrong.
    pub field: Option<&'static str>,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for BadExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field {
            Some(field) => write!(f, "{field} {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for BadExpr {}

/// A checked expression.
#[derive(Debug, Clone)]
pub struct Expr {
    /// One, or two of which the earlier counts: day of month or day of week.
    schedules: Vec<Schedule>,
    interval: bool,
}

/// Longest expression that is read.
const LONGEST: usize = 256;

const MACROS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

impl Expr {
    /// Reads `text`; `seconds`: there are six fields and the first one is the second.
    ///
    /// # Errors
    /// [`BadExpr`] that names the field.
    pub fn parse(text: &str, seconds: bool) -> Result<Self, BadExpr> {
        let whole = |message: String| BadExpr { field: None, message };
        if text.len() > LONGEST {
            return Err(whole(format!("a schedule has at most {LONGEST} characters")));
        }
        let fields = if text.trim_start().starts_with('@') { expand(text.trim())? } else { text };
        let words: Vec<&str> = fields.split_whitespace().collect();
        let words = match (words.as_slice(), seconds) {
            (five @ [_, _, _, _, _], false) => std::iter::once("0").chain(five.iter().copied()).collect(),
            (six @ [_, _, _, _, _, _], true) => six.to_vec(),
            (five @ [_, _, _, _, _], true) if fields != text => {
                std::iter::once("0").chain(five.iter().copied()).collect()
            }
            ([_, _, _, _, _, _], false) => {
                return Err(whole(format!(
                    "`{text}` has six fields and five are wanted (minute hour day-of-month month day-of-week); if the \
                     first one is the second, ask for that with `seconds = true`"
                )));
            }
            (other, _) => {
                let wanted = if seconds { "six (second minute hour" } else { "five (minute hour" };
                return Err(whole(format!(
                    "`{text}` has {} fields; write {wanted} day-of-month month day-of-week)",
                    other.len()
                )));
            }
        };
        Self::of_fields(&words)
    }

    /// From six fields.
    fn of_fields(words: &[&str]) -> Result<Self, BadExpr> {
        let kinds = [field::SECOND, field::MINUTE, field::HOUR, field::DAY, field::MONTH, field::WEEKDAY];
        let mut fields = Vec::with_capacity(6);
        for (kind, word) in kinds.into_iter().zip(words) {
            fields.push(field::read(kind, word)?);
        }
        let [second, minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(BadExpr { field: None, message: "a schedule has six fields at most".to_owned() });
        };
        let any = "*".to_owned();
        let (days, weekdays) = (numbers(day, 0), numbers(weekday, 1));
        let day_pairs =
            if day.star || weekday.star { vec![(days, weekdays)] } else { vec![(days, any.clone()), (any, weekdays)] };
        let front = format!("{} {} {}", numbers(second, 0), numbers(minute, 0), numbers(hour, 0));
        let schedules = day_pairs
            .into_iter()
            .map(|(days, weekdays)| format!("{front} {days} {} {weekdays}", numbers(month, 0)).parse())
            .collect::<Result<Vec<Schedule>, _>>()
            .map_err(|error| BadExpr { field: None, message: format!("the schedule is not understood: {error}") })?;
        let every = |field: &Field| field.star || field.all;
        let expr = Self { schedules, interval: every(second) || every(minute) || every(hour) };
        // A leap day may be eight years away; a date that does not come in 30 years does not exist.
        let start = NaiveDateTime::default() + chrono::TimeDelta::days(365 * 30);
        if expr.after(start).is_none() {
            let day = words.get(3).copied().unwrap_or_default();
            let month = words.get(4).copied().unwrap_or_default();
            let message =
                format!("`{day}`: no month of `{month}` has such a day, so it would never run; change one of the two");
            return Err(BadExpr { field: Some(field::DAY.name), message });
        }
        Ok(expr)
    }

    /// Whether it names a rhythm (`*` or all values in its hour, minute or second) and not times of the day.
    #[must_use]
    pub const fn is_interval(&self) -> bool {
        self.interval
    }

    /// The first match after `moment` on a wall clock that is never changed; `None`: none until the year 2100.
    pub(super) fn after(&self, moment: NaiveDateTime) -> Option<NaiveDateTime> {
        let moment: DateTime<Utc> = moment.and_utc();
        self.schedules.iter().filter_map(|schedule| schedule.after(&moment).next()).min().map(|next| next.naive_utc())
    }
}

fn expand(text: &str) -> Result<&'static str, BadExpr> {
    let lower = text.to_ascii_lowercase();
    if let Some((_, fields)) = MACROS.iter().find(|(name, _)| *name == lower) {
        return Ok(fields);
    }
    let why = match lower.split_whitespace().next() {
        Some("@reboot") => "many servers may share a schedule, so there is no one boot; use a fixed time",
        Some("@every") => "write the rhythm as fields, for example `*/5 * * * *` for every 5 minutes",
        _ => "write @yearly, @monthly, @weekly, @daily or @hourly, or fields",
    };
    Err(BadExpr { field: None, message: format!("`{text}` is not known here: {why}") })
}

/// A field as the `cron` crate reads it; its Sunday is 1.
fn numbers(field: &Field, shift: u32) -> String {
    if field.all {
        return "*".to_owned();
    }
    let numbers: Vec<String> = field.values.iter().map(|value| (value + shift).to_string()).collect();
    numbers.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(text: &str, from: &str, n: usize) -> Vec<String> {
        let expr = Expr::parse(text, text.split_whitespace().count() == 6).expect(text);
        let start = NaiveDateTime::parse_from_str(from, "%Y-%m-%d %H:%M").expect("a moment");
        let next = |moment: &NaiveDateTime| expr.after(*moment);
        let all = std::iter::successors(next(&start), next).take(n);
        all.map(|moment| moment.format("%a %m-%d %H:%M:%S").to_string()).collect()
    }

    #[test]
    fn weekdays_are_those_of_vixie() {
        assert_eq!(ticks("0 9 * * 1-5", "2026-11-20 10:00", 2), ["Mon 11-23 09:00:00", "Tue 11-24 09:00:00"]);
        assert_eq!(ticks("0 9 * * 0", "2026-11-20 10:00", 1), ["Sun 11-22 09:00:00"]);
        assert_eq!(ticks("0 9 * * 7", "2026-11-20 10:00", 1), ["Sun 11-22 09:00:00"]);
        assert_eq!(ticks("@weekly", "2026-11-20 10:00", 1), ["Sun 11-22 00:00:00"]);
    }

    #[test]
    fn both_day_fields_are_or_unless_one_begins_with_a_star() {
        let or = [
            "Fri 02-06 00:00:00",
            "Fri 02-13 00:00:00",
            "Fri 02-20 00:00:00",
            "Fri 02-27 00:00:00",
            "Fri 03-06 00:00:00",
        ];
        assert_eq!(ticks("0 0 13 * fri", "2026-02-01 00:00", 5), or);
        assert_eq!(
            ticks("0 0 14 * fri", "2026-02-10 00:00", 3),
            ["Fri 02-13 00:00:00", "Sat 02-14 00:00:00", "Fri 02-20 00:00:00"]
        );
        // Vixie's rule: a star, even with a step, makes both count.
        assert_eq!(
            ticks("0 0 */2 * 1", "2026-11-01 00:00", 3),
            ["Mon 11-09 00:00:00", "Mon 11-23 00:00:00", "Mon 12-07 00:00:00"]
        );
    }

    #[test]
    fn seconds_come_first_when_asked_for() {
        assert_eq!(
            ticks("*/30 0 12 * * *", "2026-11-22 00:00", 3),
            ["Sun 11-22 12:00:00", "Sun 11-22 12:00:30", "Mon 11-23 12:00:00"]
        );
        assert!(Expr::parse("@daily", true).is_ok());
    }

    #[test]
    fn silly_and_impossible_schedules_are_refused_with_the_field_named() {
        let told = |text: &str| match Expr::parse(text, false) {
            Ok(_) => format!("{text} => accepted"),
            Err(error) => format!("{text} => {error}"),
        };
        let texts = [
            "0 0 30 2 *",
            "0 0 31 4,6,9,11 *",
            "*/0 * * * *",
            "60 * * * *",
            "* 24 * * *",
            "0 0 0 * *",
            "0 0 * 13 *",
            "0 0 * * 8",
            "0 0 * * fry",
            "50-10 * * * *",
            "*/90 * * * *",
            "0 0 L * *",
            "0 0 * * 1#2",
            "* * * *",
            "0 * * * * *",
            "1,,2 * * * *",
            "",
            "@reboot",
            "@every 5m",
            "@noon",
            "-1 * * * *",
            "1.5 * * * *",
        ];
        insta::assert_snapshot!(texts.map(told).join("\n"));
        assert!(Expr::parse("0 0 30 2 1", false).is_ok(), "a Monday in February is possible: the two are or");
        assert!(Expr::parse("0 0 29 2 *", false).is_ok());
        assert!(Expr::parse(&"1,".repeat(500), false).is_err());
    }
}
