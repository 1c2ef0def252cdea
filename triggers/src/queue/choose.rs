//! Which trigger takes which messages, and which of them go together. Pure: the moment comes in.
//!
//! A message goes to the first trigger of its queue whose filters it matches and that may still start something. One that matches no
//! trigger is not wanted by anybody and goes; one that a filter cannot look into is a dead letter, for nobody can say whether it is
//! wanted. So is one that has come from a function to which it would lead again.

use chrono::TimeDelta;
use runlet_core::clock::Timestamp;
use runlet_core::store::message::{Batch, Candidate, Choice, Consumer, Free};

use super::event;
use crate::webhook::{glob_matches, unmatched};

/// Most bytes of bodies in a batch.
const BYTES: usize = 16 << 20;

/// What a trigger says to a message.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Wanted,
    Unwanted,
    /// It can never be dealt with, for this reason.
    Hopeless(String),
}

fn ask(consumer: &Consumer, message: &Candidate) -> Answer {
    let attributes = consumer.spec.attributes.iter().all(|(name, globs)| {
        message.attributes.get(name).is_some_and(|value| globs.iter().any(|glob| glob_matches(glob, value)))
    });
    if !attributes {
        return Answer::Unwanted;
    }
    if !consumer.spec.fields.is_empty() {
        if serde_json::from_slice::<serde::de::IgnoredAny>(&message.body).is_err() {
            let reason = "the body is no JSON, and the trigger's `match` has to look into it";
            return Answer::Hopeless(reason.to_owned());
        }
        if unmatched(&consumer.spec.fields, Some(&message.body)).is_some() {
            return Answer::Unwanted;
        }
    }
    match event::lineage(message).map(|lineage| lineage.leads_to(&consumer.function)) {
        Some(Err(endless)) => Answer::Hopeless(endless.to_string()),
        _ => Answer::Wanted,
    }
}

/// A batch that is being filled.
struct Open<'a> {
    consumer: &'a Consumer,
    messages: Vec<usize>,
    bytes: usize,
    /// When its first message got ready.
    since: Timestamp,
}

/// Decides about candidates. The second value is the moment at which a batch that still waits for more is to go as it is.
#[must_use]
pub fn choose(
    consumers: &[Consumer],
    candidates: &[Candidate],
    free: &[Free],
    now: Timestamp,
) -> (Choice, Option<Timestamp>) {
    let mut choice = Choice::default();
    let mut left: Vec<u32> = consumers
        .iter()
        .map(|one| free.iter().find(|free| free.trigger == one.trigger).map_or(0, |free| free.invocations))
        .collect();
    let mut open: Vec<Option<Open<'_>>> = consumers.iter().map(|_| None).collect();
    for (place, message) in candidates.iter().enumerate() {
        let answers: Vec<Answer> = consumers.iter().map(|consumer| ask(consumer, message)).collect();
        if answers.iter().all(|answer| *answer != Answer::Wanted) {
            let hopeless = answers.into_iter().find_map(|answer| match answer {
                Answer::Hopeless(reason) => Some(reason),
                Answer::Wanted | Answer::Unwanted => None,
            });
            match hopeless {
                Some(reason) => choice.dead.push((place, reason)),
                None => choice.unwanted.push(place),
            }
            continue;
        }
        for (nth, consumer) in consumers.iter().enumerate() {
            let (Some(left), Some(open)) = (left.get_mut(nth), open.get_mut(nth)) else { continue };
            if *left == 0 || answers.get(nth) != Some(&Answer::Wanted) {
                continue;
            }
            if open.as_ref().is_some_and(|open| open.bytes + message.body.len() > BYTES) {
                choice.batches.extend(open.take().map(|open| close(&open, candidates)));
                *left -= 1;
                if *left == 0 {
                    continue;
                }
            }
            let batch =
                open.get_or_insert_with(|| Open { consumer, messages: Vec::new(), bytes: 0, since: message.ready_at });
            batch.messages.push(place);
            batch.bytes += message.body.len();
            batch.since = batch.since.min(message.ready_at);
            if batch.messages.len() >= consumer.spec.batch_size as usize {
                choice.batches.extend(open.take().map(|open| close(&open, candidates)));
                *left -= 1;
            }
            break;
        }
    }
    let mut wait = None;
    for open in open.into_iter().flatten() {
        let window = TimeDelta::from_std(open.consumer.spec.batch_window.0).unwrap_or_default();
        let due = open.since + window;
        if due <= now {
            choice.batches.push(close(&open, candidates));
        } else {
            wait = Some(wait.map_or(due, |wait: Timestamp| wait.min(due)));
        }
    }
    (choice, wait)
}

fn close(open: &Open<'_>, candidates: &[Candidate]) -> Batch {
    let messages: Vec<&Candidate> = open.messages.iter().filter_map(|place| candidates.get(*place)).collect();
    let (payload, content_type) = event::payload(open.consumer, &messages);
    Batch {
        trigger: open.consumer.trigger,
        messages: open.messages.clone(),
        payload,
        content_type,
        cause: event::cause(open.consumer, &messages),
    }
}
