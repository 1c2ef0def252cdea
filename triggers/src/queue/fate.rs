//! What the end of an invocation means for its messages. Pure.
//!
//! A batch succeeds or fails as a whole, unless its function returned `{"batchItemFailures": [{"itemIdentifier": "msg_..."}]}`: then
//! those have failed and the others are dealt with. A list that names something else is not believed: all have failed then, so that
//! nothing is lost by a misspelt answer.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use runlet_core::invocation::InvocationState;
use runlet_core::manifest::QueueTrigger;
use runlet_core::store::message::{Ended, Fate};
use serde::Deserialize;

/// Characters of an error that go on record with a message.
const SHOWN: usize = 500;

/// What a function may return for a batch.
#[derive(Deserialize)]
struct Report {
    #[serde(rename = "batchItemFailures")]
    failures: Option<Vec<Failure>>,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(rename = "itemIdentifier")]
    item: String,
}

/// The fates of the messages of an invocation, in their order.
#[must_use]
pub fn decide(ended: &Ended) -> Vec<Fate> {
    let each = |fate: &dyn Fn(u32) -> Fate| ended.messages.iter().map(|(_, attempts)| fate(*attempts)).collect();
    let again = |attempts: u32, reason: String| after_failure(ended.spec.as_ref(), attempts, reason);
    match ended.state {
        Some(InvocationState::Succeeded) => match reported(ended) {
            Said::None => each(&|_| Fate::Done),
            Said::Strange(why) => each(&|attempts| again(attempts, why.clone())),
            Said::Failed(failed) => ended
                .messages
                .iter()
                .map(|(id, attempts)| match failed.contains(&id.to_string()) {
                    true => again(*attempts, "the function reported it as failed".to_owned()),
                    false => Fate::Done,
                })
                .collect(),
        },
        Some(InvocationState::Cancelled) => each(&|_| Fate::Dead("somebody cancelled its invocation".to_owned())),
        Some(_) => each(&|attempts| again(attempts, reason(ended))),
        None => each(&|attempts| again(attempts, "history has lost its invocation".to_owned())),
    }
}

/// What a success says about the messages of a batch.
enum Said {
    None,
    Failed(HashSet<String>),
    Strange(String),
}

fn reported(ended: &Ended) -> Said {
    let batches = ended.spec.as_ref().is_none_or(|spec| spec.batch_size > 1) || ended.messages.len() > 1;
    let Some(result) = ended.result.as_ref().filter(|_| batches) else { return Said::None };
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(result) else { return Said::None };
    if value.get("batchItemFailures").is_none() {
        return Said::None;
    }
    let Ok(report) = Report::deserialize(&value) else {
        return Said::Strange("the function's batchItemFailures is not a list of {\"itemIdentifier\": id}".to_owned());
    };
    let failed: HashSet<String> = report.failures.into_iter().flatten().map(|failure| failure.item).collect();
    let ours: HashSet<String> = ended.messages.iter().map(|(id, _)| id.to_string()).collect();
    match failed.iter().find(|item| !ours.contains(*item)) {
        Some(_) => {
            Said::Strange("the function's batchItemFailures names a message that is not in the batch".to_owned())
        }
        None => Said::Failed(failed),
    }
}

/// Why an invocation failed, in a line.
fn reason(ended: &Ended) -> String {
    let state = ended.state.map_or("lost", InvocationState::as_str);
    let Some(outcome) = &ended.outcome else { return state.to_owned() };
    let reason = match (&outcome.error, outcome.exit_code) {
        (Some(error), _) => format!("{}: {}: {}", outcome.kind, error.kind, error.message),
        (None, Some(code)) => format!("{} {code}", outcome.kind),
        (None, None) => outcome.kind.to_string(),
    };
    reason.chars().take(SHOWN).collect()
}

/// Again, later each time; or a dead letter, after as many attempts as the trigger gives.
fn after_failure(spec: Option<&QueueTrigger>, attempts: u32, reason: String) -> Fate {
    let Some(spec) = spec else { return Fate::Again(Duration::from_secs(1), reason) };
    if attempts + 1 >= spec.max_attempts {
        return Fate::Dead(reason);
    }
    let pause = spec.backoff.0.saturating_mul(2_u32.saturating_pow(attempts.min(30))).min(spec.backoff_max.0);
    Fate::Again(jittered(pause), reason)
}

/// Half of it up to all of it: those that failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let percent = u32::try_from(RandomState::new().hash_one(0) % 51).unwrap_or(0);
    pause * (50 + percent) / 100
}

#[cfg(test)]
mod tests {
    use runlet_core::id::{InvocationId, MessageId};
    use runlet_core::outcome::{Outcome, OutcomeKind};
    use runlet_core::unit::Span;

    use super::*;

    fn spec(batch_size: u32) -> QueueTrigger {
        QueueTrigger {
            queue: "q".to_owned(),
            source: None,
            subject: None,
            batch_size,
            batch_window: Span(Duration::ZERO),
            max_in_flight: 1,
            max_attempts: 3,
            backoff: Span(Duration::from_secs(2)),
            backoff_max: Span(Duration::from_secs(5)),
            attributes: std::collections::BTreeMap::new(),
            fields: std::collections::BTreeMap::new(),
        }
    }

    fn ended(state: InvocationState, result: &str, attempts: &[u32]) -> Ended {
        Ended {
            invocation: InvocationId::new(),
            state: Some(state),
            outcome: Some(Outcome::because(OutcomeKind::Error, "no")),
            result: Some(result.to_owned().into()),
            spec: Some(spec(10)),
            messages: attempts.iter().map(|attempts| (MessageId::new(), *attempts)).collect(),
        }
    }

    fn words(fates: &[Fate]) -> String {
        let word = |fate: &Fate| match fate {
            Fate::Done => 'd',
            Fate::Again(..) => 'a',
            Fate::Dead(_) => 'x',
        };
        fates.iter().map(word).collect()
    }

    #[test]
    fn a_success_is_done_and_a_failure_comes_back_until_it_is_dead() {
        assert_eq!(words(&decide(&ended(InvocationState::Succeeded, "null", &[0, 2]))), "dd");
        assert_eq!(words(&decide(&ended(InvocationState::Failed, "", &[0, 1, 2]))), "aax");
        assert_eq!(words(&decide(&ended(InvocationState::Cancelled, "", &[0]))), "x");
    }

    #[test]
    fn those_that_are_reported_have_failed_and_a_strange_report_fails_all() {
        let mut batch = ended(InvocationState::Succeeded, "", &[0, 0, 2]);
        let mut told = |items: &[String]| {
            let items: Vec<_> = items.iter().map(|item| serde_json::json!({ "itemIdentifier": item })).collect();
            batch.result = Some(serde_json::json!({ "batchItemFailures": items }).to_string().into());
            words(&decide(&batch))
        };
        assert_eq!(told(&[]), "ddd");
        assert_eq!(told(&["msg_x".to_owned()]), "aax");
        let third = batch.messages[2].0.to_string();
        batch.result =
            Some(serde_json::json!({ "batchItemFailures": [{ "itemIdentifier": third }] }).to_string().into());
        assert_eq!(words(&decide(&batch)), "ddx");
        batch.result = Some(r#"{"batchItemFailures": [{"id": "x"}]}"#.into());
        assert_eq!(words(&decide(&batch)), "aax");
        batch.result = Some(r#"{"batchItemFailures": null}"#.into());
        assert_eq!(words(&decide(&batch)), "ddd");
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        for (attempts, most) in [(0, 2), (1, 4)] {
            let Fate::Again(pause, _) = after_failure(Some(&spec(1)), attempts, String::new()) else { panic!("again") };
            let most = Duration::from_secs(most);
            assert!(most / 2 <= pause && pause <= most, "{pause:?}");
        }
        let many = QueueTrigger { max_attempts: 1000, ..spec(1) };
        let Fate::Again(pause, _) = after_failure(Some(&many), 500, String::new()) else { panic!("again") };
        assert!(pause <= Duration::from_secs(5));
    }
}
