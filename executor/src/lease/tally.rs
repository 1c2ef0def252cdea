//! What the steps of a lease come to: the outcome of the whole.
//!
//! A step may be tried again under the same name, and the last try counts. The first of the steps that did not end well says how
//! the whole ended, for what comes behind it (to clean up, to keep a cache) ends well more often than not.

use runlet_core::outcome::{Outcome, OutcomeKind};

/// The last outcome of each step that counts, in the order in which they first came.
#[derive(Debug, Default)]
pub(super) struct Tally(Vec<(Option<String>, Outcome)>);

impl Tally {
    /// Takes the outcome of a step that counts.
    pub(super) fn add(&mut self, step: Option<&str>, outcome: Outcome) {
        let same = |(name, _): &&mut (Option<String>, Outcome)| step.is_some() && name.as_deref() == step;
        match self.0.iter_mut().find(same) {
            Some((_, last)) => *last = outcome,
            None => self.0.push((step.map(str::to_owned), outcome)),
        }
    }

    /// The first outcome that is not `ok`.
    pub(super) fn failure(&self) -> Option<&Outcome> {
        self.0.iter().map(|(_, outcome)| outcome).find(|outcome| !outcome.is_ok())
    }

    /// The outcome of a lease that was released.
    pub(super) fn outcome(&self) -> Outcome {
        match self.failure() {
            Some(failure) => failure.clone(),
            None if self.0.is_empty() => {
                Outcome::because(OutcomeKind::Cancelled, "it was released before anything had run in it")
            }
            None => Outcome::ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(steps: &[(&str, i32)]) -> Outcome {
        let mut tally = Tally::default();
        for (step, code) in steps {
            tally.add(Some(step), if *code == 0 { Outcome::ok() } else { Outcome::exit(*code) });
        }
        tally.outcome()
    }

    #[test]
    fn the_last_try_of_a_step_counts_and_the_first_failed_step_decides() {
        assert_eq!(tally(&[]).kind, OutcomeKind::Cancelled);
        assert_eq!(tally(&[("a", 0), ("b", 0)]), Outcome::ok());
        assert_eq!(tally(&[("sources", 1), ("sources", 0), ("build", 0)]), Outcome::ok());
        assert_eq!(tally(&[("sources", 0), ("build", 42), ("upload", 0)]).exit_code, Some(42));
        assert_eq!(tally(&[("build", 42), ("upload", 3)]).exit_code, Some(42));
    }

    #[test]
    fn steps_without_a_name_are_never_the_same() {
        let mut tally = Tally::default();
        tally.add(None, Outcome::exit(3));
        tally.add(None, Outcome::ok());
        assert_eq!(tally.outcome().exit_code, Some(3));
    }
}
