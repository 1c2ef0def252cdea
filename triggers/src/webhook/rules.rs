//! Which triggers of a hook want an event, and the sentence that says why or why not.

use runlet_core::manifest::WebhookTrigger;

use super::event::Event;
use super::fields::unmatched;

/// What one trigger says to an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether it wants the event.
    pub wanted: bool,
    /// Why, or why not.
    pub reason: String,
}

/// Asks one trigger.
#[must_use]
pub fn decide(trigger: &WebhookTrigger, event: &Event) -> Decision {
    let no = |reason: String| Decision { wanted: false, reason };
    let name = event.label.event.as_deref();
    if !trigger.events.is_empty() && !name.is_some_and(|name| trigger.events.iter().any(|wanted| wanted == name)) {
        let wanted = trigger.events.join(", ");
        return no(match name {
            Some(name) => format!("event {name} is not in [{wanted}]"),
            None => format!("the delivery names no event, and only [{wanted}] is wanted"),
        });
    }
    let branch = event.branch.as_deref();
    if !trigger.branches.is_empty()
        && !branch.is_some_and(|branch| trigger.branches.iter().any(|glob| matches(glob, branch)))
    {
        let wanted = trigger.branches.join(", ");
        return no(match branch {
            Some(branch) => format!("branch {branch} matches none of [{wanted}]"),
            None => {
                format!("event {} is about no branch, and only [{wanted}] is wanted", name.unwrap_or("without a name"))
            }
        });
    }
    if let Some(reason) = unmatched(&trigger.fields, event.payload.as_deref()) {
        return no(reason);
    }
    let mut reason =
        name.map_or_else(|| "matched an event without a name".to_owned(), |name| format!("matched event {name}"));
    if let Some(branch) = branch {
        reason.push_str(", branch ");
        reason.push_str(branch);
    }
    for path in trigger.fields.keys() {
        reason.push_str(", ");
        reason.push_str(path.as_str());
    }
    Decision { wanted: true, reason }
}

/// Whether `text` matches `glob`: `*` stands for any run of characters, also none; all else for itself.
///
/// Needs no recursion: when a literal fails, only the last `*` is made one character longer.
#[must_use]
pub fn matches(glob: &str, text: &str) -> bool {
    let (glob, text) = (glob.as_bytes(), text.as_bytes());
    let (mut at, mut pos) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while pos < text.len() {
        if glob.get(at) == Some(&b'*') {
            star = Some((at + 1, pos));
            at += 1;
        } else if glob.get(at) == text.get(pos) {
            at += 1;
            pos += 1;
        } else if let Some((behind, from)) = star {
            star = Some((behind, from + 1));
            at = behind;
            pos = from + 1;
        } else {
            return false;
        }
    }
    glob.iter().skip(at).all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use runlet_core::manifest::{AdapterKind, FieldPath, FieldValue};
    use runlet_core::name::{HookPath, SecretName};

    use super::super::event::{EventKind, Label};
    use super::*;

    fn trigger(events: &[&str], branches: &[&str]) -> WebhookTrigger {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        WebhookTrigger {
            path: HookPath::new("gh").unwrap(),
            adapter: AdapterKind::Github,
            secret: Some(SecretName::new("gh-hook").unwrap()),
            events: owned(events),
            branches: owned(branches),
            fields: BTreeMap::new(),
        }
    }

    fn picky(path: &str, value: &str) -> WebhookTrigger {
        let field = (FieldPath::new(path).unwrap(), vec![FieldValue::Text(value.to_owned())]);
        WebhookTrigger { fields: BTreeMap::from([field]), ..trigger(&[], &[]) }
    }

    fn event(name: Option<&str>, branch: Option<&str>) -> Event {
        Event {
            kind: EventKind::Deliver,
            label: Label { event: name.map(str::to_owned), provider_id: None },
            branch: branch.map(str::to_owned),
            payload: Some(Bytes::from_static(br#"{"a": "x", "b": 1}"#)),
            normalised: None,
        }
    }

    #[test]
    fn every_decision_says_why() {
        let push_main = trigger(&["push"], &["main", "release/*"]);
        let cases = [
            (&push_main, event(Some("push"), Some("main")), true, "matched event push, branch main"),
            (&push_main, event(Some("push"), Some("release/1.2")), true, "matched event push, branch release/1.2"),
            (&push_main, event(Some("push"), Some("dev")), false, "branch dev matches none of [main, release/*]"),
            (
                &push_main,
                event(Some("push"), None),
                false,
                "event push is about no branch, and only [main, release/*] is wanted",
            ),
            (&push_main, event(Some("issues"), None), false, "event issues is not in [push]"),
            (&push_main, event(None, None), false, "the delivery names no event, and only [push] is wanted"),
            (&trigger(&[], &[]), event(Some("issues"), None), true, "matched event issues"),
            (&picky("a", "y"), event(Some("push"), None), false, r#"a is "x", and only ["y"] is wanted"#),
            (&picky("a", "*"), event(Some("push"), None), true, "matched event push, a"),
            (&trigger(&[], &[]), event(None, None), true, "matched an event without a name"),
        ];
        for (trigger, event, wanted, reason) in cases {
            assert_eq!(decide(trigger, &event), Decision { wanted, reason: reason.to_owned() });
        }
    }

    #[test]
    fn globs() {
        for (glob, text) in [
            ("main", "main"),
            ("*", ""),
            ("*", "a/b"),
            ("release/*", "release/"),
            ("*-fix", "a-fix-fix"),
            ("a*b*c", "abbbcc"),
        ] {
            assert!(matches(glob, text), "{glob} {text}");
        }
        for (glob, text) in
            [("main", "maine"), ("", "a"), ("release/*", "release"), ("a*b", "a"), ("Main", "main"), ("ma?n", "main")]
        {
            assert!(!matches(glob, text), "{glob} {text}");
        }
    }

    /// The definition, as slow as it is plain.
    fn plain(glob: &[u8], text: &[u8]) -> bool {
        match glob.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|skip| plain(rest, &text[skip..])),
            Some((byte, rest)) => text.split_first().is_some_and(|(first, text)| first == byte && plain(rest, text)),
        }
    }

    proptest! {
        #[test]
        fn globs_equal_their_definition(glob in "[ab*]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(matches(&glob, &text), plain(glob.as_bytes(), text.as_bytes()));
        }
    }
}
