//! Random patterns, the same in every run.

use chrono_tz::Tz;
use runlet_core::clock::Timestamp;
use runlet_triggers::cron::Rhythm;

/// Zones with every kind of clock change: an hour, half an hour, in the south, none.
pub(crate) const ZONES: [&str; 5] = ["America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"];

/// Ticks of each pattern that are compared: from just before the first change of the year, or all year.
pub(crate) const TICKS: usize = 60;

pub(crate) struct Case {
    pub(crate) schedule: String,
    pub(crate) zone: Tz,
    pub(crate) from: Timestamp,
}

impl Case {
    pub(crate) fn ours(&self) -> Vec<Timestamp> {
        let rhythm = Rhythm::new(&self.schedule, self.zone.name(), false).expect("the generator makes good ones");
        let ticks: Vec<Timestamp> = rhythm.ticks_after(self.from).take(TICKS).collect();
        assert!(ticks.is_sorted_by(|one, other| one < other), "{}: time goes forward", self.schedule);
        ticks
    }

    pub(crate) fn fields(&self) -> Vec<&str> {
        self.schedule.split(' ').collect()
    }
}

/// A small generator (xorshift): no dependency, no seed to forget.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from((self.0 >> 32) % u64::from(n)).expect("it is below a u32")
    }

    fn field(&mut self, first: u32, last: u32, often_star: u32) -> String {
        let (a, b) = (first + self.below(last - first + 1), first + self.below(last - first + 1));
        let (low, high) = (a.min(b), a.max(b));
        match self.below(10 + often_star) {
            0..=2 => a.to_string(),
            3 if low < high => format!("{low},{high}"),
            4..=5 => format!("{low}-{high}"),
            6 if high - low > 1 => {
                format!("{low}-{high}/{}", 2 + self.below((high - low).min(9)) % (high - low - 1).max(1))
            }
            7..=8 => format!("*/{}", 2 + self.below((last - first) / 2)),
            _ => "*".to_owned(),
        }
    }
}

/// `n` cases; those that no date can match are left out.
pub(crate) fn cases(n: usize) -> Vec<Case> {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut cases = Vec::with_capacity(n);
    // A night before a change of the clocks, for each zone and change, so that sixty ticks see it.
    let nights = [
        ["2026-03-07T20:00:00Z", "2026-10-31T20:00:00Z"],
        ["2026-03-28T18:00:00Z", "2026-10-24T18:00:00Z"],
        ["2026-10-03T08:00:00Z", "2026-04-04T08:00:00Z"],
        ["2026-03-28T18:00:00Z", "2026-10-24T18:00:00Z"],
        ["2026-03-28T18:00:00Z", "2026-10-24T18:00:00Z"],
    ];
    while cases.len() < n {
        let zone = cases.len() % ZONES.len();
        let hours = if dice.below(2) == 0 { dice.field(0, 4, 2) } else { dice.field(0, 23, 6) };
        let fields = [dice.field(0, 59, 3), hours, dice.field(1, 31, 15), dice.field(1, 12, 30), dice.field(0, 7, 15)];
        let schedule = fields.join(" ");
        if Rhythm::new(&schedule, ZONES[zone], false).is_ok() {
            let from = nights[zone][cases.len() / ZONES.len() % 2].parse().expect("a moment");
            cases.push(Case { schedule, zone: ZONES[zone].parse().expect("a zone"), from });
        }
    }
    cases
}

/// How many patterns are compared.
pub(crate) fn scale() -> usize {
    if std::env::var("RUNLET_TEST_SCALE").is_ok_and(|scale| scale == "full") { 2000 } else { 300 }
}
