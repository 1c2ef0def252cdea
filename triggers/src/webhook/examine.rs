//! From a request to a decision, without any waiting: verify first, parse afterwards, then ask the rules.

use runlet_core::secret::Secret;
use runlet_core::store::function::HookTrigger;

use super::adapter::{Adapter, Refusal, Request};
use super::event::{Event, EventKind};
use super::rules::decide;

/// What a request turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Examined {
    /// No event.
    Refused(Refusal),
    /// A sender that tries its hook.
    Ping(Event),
    /// An event.
    Event {
        /// What the adapter read.
        event: Event,
        /// The triggers that want it, as places in the list that was asked; at most one of each function.
        wanted: Vec<usize>,
        /// What each trigger said.
        reasons: Vec<String>,
    },
}

/// Examines a request to a hook with these triggers. The body is parsed only when the signature is right.
#[must_use]
pub fn examine(adapter: &dyn Adapter, secret: &Secret, request: &Request<'_>, triggers: &[HookTrigger]) -> Examined {
    if let Err(refusal) = adapter.verify(request, secret) {
        return Examined::Refused(refusal);
    }
    // A body with two types is two bodies to two readers.
    if let Err(error) = request.headers.one("content-type") {
        return Examined::Refused(error.into());
    }
    let event = match adapter.read(request) {
        Ok(event) => event,
        Err(refusal) => return Examined::Refused(refusal),
    };
    if event.kind == EventKind::Ping {
        return Examined::Ping(event);
    }
    let mut wanted: Vec<usize> = Vec::new();
    let mut reasons = Vec::with_capacity(triggers.len());
    for (place, trigger) in triggers.iter().enumerate() {
        let taken =
            wanted.iter().filter_map(|place| triggers.get(*place)).any(|other| other.function == trigger.function);
        let decision = decide(&trigger.spec, &event);
        // Two triggers of one function that both match still mean one thing to do.
        let reason = if decision.wanted && taken { "taken by an earlier trigger" } else { &decision.reason };
        reasons.push(format!("{}: {reason}", trigger.function));
        if decision.wanted && !taken {
            wanted.push(place);
        }
    }
    Examined::Event { event, wanted, reasons }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use runlet_core::clock;
    use runlet_core::id::TriggerId;
    use runlet_core::manifest::{AdapterKind, WebhookTrigger};
    use runlet_core::name::{FunctionName, HookPath, SecretName};

    use super::super::event::Label;
    use super::super::headers::Headers;
    use super::*;

    /// A sender whose signature is the secret itself as the first bytes of the body; the rest is the event's name.
    #[derive(Debug)]
    struct Toy;

    impl Adapter for Toy {
        fn usable(&self, _: &Secret) -> Result<(), String> {
            Ok(())
        }

        fn verify(&self, request: &Request<'_>, secret: &Secret) -> Result<(), Refusal> {
            if request.body.starts_with(secret.expose()) { Ok(()) } else { Err(Refusal::Signature("wrong".to_owned())) }
        }

        fn label(&self, _: &Headers) -> Result<Label, Refusal> {
            Ok(Label::default())
        }

        fn read(&self, request: &Request<'_>) -> Result<Event, Refusal> {
            let name = std::str::from_utf8(&request.body[1..]).map_err(|_| Refusal::Body("not text".to_owned()))?;
            let kind = if name == "ping" { EventKind::Ping } else { EventKind::Deliver };
            let label = Label { event: Some(name.to_owned()), provider_id: None };
            Ok(Event { kind, label, branch: None, payload: None, normalised: None })
        }
    }

    fn trigger(function: &str, events: &[&str]) -> HookTrigger {
        HookTrigger {
            id: TriggerId::new(),
            function: FunctionName::new(function).unwrap(),
            spec: WebhookTrigger {
                path: HookPath::new("p").unwrap(),
                adapter: AdapterKind::Hmac,
                secret: Some(SecretName::new("s").unwrap()),
                events: events.iter().map(|event| (*event).to_owned()).collect(),
                branches: Vec::new(),
                fields: BTreeMap::new(),
            },
        }
    }

    fn ask(body: &'static [u8], triggers: &[HookTrigger]) -> Examined {
        let (headers, body) = (Headers::default(), Bytes::from_static(body));
        examine(&Toy, &Secret::new("s"), &Request { headers: &headers, body: &body, at: clock::now() }, triggers)
    }

    #[test]
    fn nothing_is_parsed_before_it_is_verified() {
        // `read` would panic on an empty body and refuse bytes that are no text.
        assert_eq!(ask(b"", &[]), Examined::Refused(Refusal::Signature("wrong".to_owned())));
        assert_eq!(ask(b"x\xff", &[]), Examined::Refused(Refusal::Signature("wrong".to_owned())));
        assert_eq!(ask(b"s\xff", &[]), Examined::Refused(Refusal::Body("not text".to_owned())));
    }

    #[test]
    fn every_trigger_is_asked_and_a_function_runs_once() {
        let triggers = [trigger("a", &["push"]), trigger("b", &["tag"]), trigger("a", &[]), trigger("c", &[])];
        let Examined::Event { wanted, reasons, .. } = ask(b"spush", &triggers) else { panic!("no event") };
        assert_eq!(wanted, [0, 3]);
        let expected = [
            "a: matched event push",
            "b: event push is not in [tag]",
            "a: taken by an earlier trigger",
            "c: matched event push",
        ];
        assert_eq!(reasons, expected);
    }

    #[test]
    fn a_ping_asks_no_rule() {
        assert!(matches!(ask(b"sping", &[trigger("a", &[])]), Examined::Ping(_)));
    }
}
