//! Schedules against two oracles: the crate `croner`, and `cronsim`, which promises to do as Debian's cron does.
//!
//! Random patterns, five zones, from the beginning of a year with both changes of the clocks. Every difference has to have a reason,
//! and the reasons are counted. `RUNLET_TEST_SCALE=full` compares 2,000 patterns; the table goes to `RUNLET_VERIFY_TABLE`.

mod croner_oracle;
mod cronsim_oracle;
mod pattern;
mod reason;
