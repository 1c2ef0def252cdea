//! The words that others build on, pinned. A change here is a change of contract: it needs a decision that says how old data and
//! old peers are met.

use crate::cause::{Cause, CauseKind};
use crate::execution::ExecutionState;
use crate::invocation::InvocationState;
use crate::outcome::{Outcome, OutcomeKind};
use crate::problem::Code;
use crate::store::delivery::Verdict;
use crate::token::Role;

#[test]
fn the_words_are_what_they_were() {
    let words = serde_json::json!({
        "invocation_states": InvocationState::ALL.map(InvocationState::as_str),
        "execution_states": ExecutionState::ALL.map(ExecutionState::as_str),
        "outcomes": OutcomeKind::ALL.map(OutcomeKind::as_str),
        "causes": CauseKind::ALL.map(CauseKind::as_str),
        "roles": Role::ALL.map(Role::as_str),
        "verdicts": Verdict::ALL.map(Verdict::as_str),
    });
    insta::assert_json_snapshot!(words);
}

#[test]
fn the_error_codes_are_what_they_were() {
    let rows = Code::ALL.map(|code| {
        let retry = code.retry_after().map_or_else(String::new, |seconds| format!(" retry after {seconds} s"));
        format!("{} {} exit {}{retry}", code, code.status(), code.exit_code())
    });
    insta::assert_snapshot!(rows.join("\n"));
}

#[test]
fn serde_and_as_str_agree() {
    fn agree<T: serde::Serialize>(value: T, text: &str) {
        assert_eq!(serde_json::to_value(value).ok(), Some(serde_json::Value::from(text)));
    }
    InvocationState::ALL.into_iter().for_each(|word| agree(word, word.as_str()));
    ExecutionState::ALL.into_iter().for_each(|word| agree(word, word.as_str()));
    OutcomeKind::ALL.into_iter().for_each(|word| agree(word, word.as_str()));
    CauseKind::ALL.into_iter().for_each(|word| agree(word, word.as_str()));
    Role::ALL.into_iter().for_each(|word| agree(word, word.as_str()));
    Verdict::ALL.into_iter().for_each(|word| agree(word, word.as_str()));
    Code::ALL.into_iter().for_each(|word| agree(word, word.as_str()));
}

#[test]
fn stored_json_keeps_its_shape() {
    let outcome = Outcome::because(OutcomeKind::InitError, "no module named x");
    insta::assert_json_snapshot!((Cause::of_kind(CauseKind::Http), Outcome::exit(3), Outcome::signal(11), outcome));
}
