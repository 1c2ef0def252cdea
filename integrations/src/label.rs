//! Names and ids that senders put into headers: short, printable, once.

use runlet_triggers::webhook::{Headers, Refusal};

/// Longest name or id.
const LONGEST: usize = 128;

/// The value of `header`, which may be absent but not be anything else than 1 to 128 visible ASCII characters.
pub(crate) fn word(headers: &Headers, header: &'static str) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.one(header)? else {
        return Ok(None);
    };
    if is_word(value) {
        Ok(Some(value.to_owned()))
    } else {
        Err(Refusal::Header(format!("header {header} does not hold 1 to {LONGEST} visible ASCII characters")))
    }
}

/// Whether `text` could be a name or an id.
pub(crate) fn is_word(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_printable_words_pass() {
        let ask = |value: &str| word(&[("x-event", value)].into_iter().collect(), "x-event");
        assert_eq!(ask("pull_request"), Ok(Some("pull_request".to_owned())));
        assert_eq!(word(&Headers::default(), "x-event"), Ok(None));
        for bad in ["", "a b", "a\tb", "é", &"a".repeat(129)] {
            assert!(ask(bad).is_err(), "{bad:?}");
        }
        let twice: Headers = [("x-event", "a"), ("X-Event", "a")].into_iter().collect();
        assert!(word(&twice, "x-event").is_err());
    }
}
