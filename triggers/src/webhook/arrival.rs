//! One request on its way: what goes on record about it and what it asks to be run. Nothing here waits for the store.

use bytes::Bytes;
use runlet_core::cause::{Cause, CauseKind};
use runlet_core::clock;
use runlet_core::engine::{DedupKey, NewInvocation};
use runlet_core::manifest::AdapterKind;
use runlet_core::name::{HookPath, Namespace};
use runlet_core::secret::Secret;
use runlet_core::store::delivery::{NewDelivery, Verdict};
use runlet_core::store::function::HookTrigger;

use super::adapter::{Adapter, Request};
use super::event::{Event, Label};
use super::examine::{Examined, examine};
use super::failure::Failure;
use super::fingerprint::{FingerprintKey, for_code};
use super::headers::Headers;

/// Bytes that are kept of the body of a stranger's request that starts nothing.
const STRANGER_BODY: usize = 64 << 10;
/// Headers that are kept of it.
const STRANGER_HEADERS: usize = 64;
/// Characters that are kept of each of them.
const STRANGER_HEADER: usize = 512;
/// Larger bodies are examined on a thread of their own, so that no other request waits for it.
const INLINE_BODY: usize = 64 << 10;

/// A request on a hook path.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// Its headers.
    pub headers: Headers,
    /// Its body, byte for byte.
    pub body: Bytes,
    /// Address of the sender.
    pub source: String,
}

/// A request with the hook that it is for.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) namespace: Namespace,
    pub(super) path: HookPath,
    pub(super) kind: AdapterKind,
    pub(super) adapter: &'static dyn Adapter,
    pub(super) triggers: Vec<HookTrigger>,
    pub(super) incoming: Incoming,
}

impl Arrival {
    /// Examines the request; a large body on a thread of its own.
    pub(super) async fn examine(self, secret: Secret) -> Result<(Self, Examined), Failure> {
        let inline = self.incoming.body.len() <= INLINE_BODY;
        let examine = move || {
            let request = Request { headers: &self.incoming.headers, body: &self.incoming.body, at: clock::now() };
            let examined = examine(self.adapter, &secret, &request, &self.triggers);
            (self, examined)
        };
        if inline { Ok(examine()) } else { tokio::task::spawn_blocking(examine).await.map_err(Failure::Examine) }
    }

    /// Whether nobody knows who sent it, and it starts nothing.
    pub(super) fn is_strangers(&self, verdict: Verdict) -> bool {
        verdict == Verdict::BadSignature || (self.kind == AdapterKind::None && verdict != Verdict::Accepted)
    }

    /// What goes on record. Of a request that is not verified only a part is kept: strangers must not fill the disk.
    pub(super) fn delivery(
        &self,
        key: &FingerprintKey,
        label: Label,
        verdict: Verdict,
        reasons: Vec<String>,
    ) -> NewDelivery {
        let mut delivery = NewDelivery {
            namespace: self.namespace.clone(),
            path: self.path.clone(),
            adapter: self.kind.as_str(),
            provider_id: label.provider_id,
            event: label.event,
            headers: key.record(&self.incoming.headers),
            source: self.incoming.source.clone(),
            body: self.incoming.body.clone(),
            body_size: self.incoming.body.len() as u64,
            verdict,
            reasons,
        };
        if self.is_strangers(verdict) {
            delivery.body = Bytes::copy_from_slice(delivery.body.get(..STRANGER_BODY).unwrap_or(&delivery.body));
            let headers = delivery.headers.into_iter().take(STRANGER_HEADERS);
            let cut = |text: String| text.chars().take(STRANGER_HEADER).collect::<String>();
            delivery.headers = headers.map(|(name, value)| (cut(name), cut(value))).collect();
        }
        delivery
    }

    /// One invocation for each trigger in `wanted`. The delivery has no id yet: the store puts it into the cause.
    pub(super) fn invocations(&self, event: &Event, wanted: &[usize]) -> Vec<NewInvocation> {
        let cause = Cause {
            headers: for_code(&self.incoming.headers),
            trace: self.incoming.headers.trace(),
            normalised: event.normalised.as_ref().and_then(|normalised| serde_json::to_value(normalised).ok()),
            ..Cause::of_kind(CauseKind::Webhook)
        };
        let triggers = wanted.iter().filter_map(|place| self.triggers.get(*place));
        let invocation = |trigger: &HookTrigger| NewInvocation {
            namespace: self.namespace.clone(),
            function: trigger.function.clone(),
            revision: None,
            cause: Cause { trigger: Some(trigger.id), ..cause.clone() },
            payload: self.incoming.body.clone(),
            content_type: self.incoming.headers.all("content-type").first().cloned(),
            dedup: event
                .label
                .provider_id
                .as_ref()
                .map(|id| DedupKey { scope: format!("hook/{}/{}", self.path, trigger.function), key: id.clone() }),
            priority: 0,
            not_before: None,
            deadline: None,
        };
        triggers.map(invocation).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use runlet_core::id::TriggerId;
    use runlet_core::manifest::WebhookTrigger;
    use runlet_core::name::{FunctionName, SecretName};

    use super::super::adapter::Refusal;
    use super::super::event::EventKind;
    use super::super::normalised::Normalised;
    use super::*;

    #[derive(Debug)]
    struct Deaf;

    impl Adapter for Deaf {
        fn usable(&self, _: &Secret) -> Result<(), String> {
            Ok(())
        }

        fn verify(&self, _: &Request<'_>, _: &Secret) -> Result<(), Refusal> {
            Err(Refusal::Signature("no".to_owned()))
        }

        fn label(&self, _: &Headers) -> Result<Label, Refusal> {
            Ok(Label::default())
        }

        fn read(&self, _: &Request<'_>) -> Result<Event, Refusal> {
            Err(Refusal::Body("no".to_owned()))
        }
    }

    fn arrival(body: &[u8]) -> Arrival {
        let trigger = |function: &str| HookTrigger {
            id: TriggerId::new(),
            function: FunctionName::new(function).unwrap(),
            spec: WebhookTrigger {
                path: HookPath::new("gh").unwrap(),
                adapter: AdapterKind::Github,
                secret: Some(SecretName::new("s").unwrap()),
                events: Vec::new(),
                branches: Vec::new(),
                fields: BTreeMap::new(),
            },
        };
        let many = (0..100).map(|n| (format!("x-{n:03}"), "v".repeat(2000)));
        let usual = [("authorization", "Bearer sesame"), ("content-type", "application/json")];
        let headers = usual.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).chain(many).collect();
        Arrival {
            namespace: Namespace::default_namespace(),
            path: HookPath::new("gh").unwrap(),
            kind: AdapterKind::Github,
            adapter: &Deaf,
            triggers: vec![trigger("a"), trigger("b")],
            incoming: Incoming { headers, body: Bytes::copy_from_slice(body), source: "192.0.2.1".to_owned() },
        }
    }

    fn event(id: Option<&str>) -> Event {
        let label = Label { event: Some("push".to_owned()), provider_id: id.map(str::to_owned) };
        let normalised = Normalised { provider: "github", kind: "push".to_owned(), ..Normalised::default() };
        Event { kind: EventKind::Deliver, label, branch: None, payload: None, normalised: Some(normalised) }
    }

    #[test]
    fn strangers_leave_little_and_senders_leave_everything() {
        let body = vec![7; STRANGER_BODY + 1];
        let (arrival, key) = (arrival(&body), FingerprintKey::new([0; 32]));
        let refused = arrival.delivery(&key, Label::default(), Verdict::BadSignature, vec!["no".to_owned()]);
        assert_eq!((refused.body.len(), refused.body_size), (STRANGER_BODY, body.len() as u64));
        assert_eq!(refused.headers.len(), STRANGER_HEADERS);
        assert!(refused.headers.values().all(|value| value.len() <= STRANGER_HEADER));

        let verified = arrival.delivery(&key, Label::default(), Verdict::Ignored, Vec::new());
        assert_eq!(verified.body, body);
        assert_eq!(verified.headers.len(), 102);
        assert!(verified.headers["authorization"].starts_with("hmac-sha256:"));

        let public = Arrival { kind: AdapterKind::None, ..arrival };
        for (verdict, kept) in [(Verdict::Ignored, STRANGER_BODY), (Verdict::Accepted, body.len())] {
            assert_eq!(public.delivery(&key, Label::default(), verdict, Vec::new()).body.len(), kept, "{verdict:?}");
        }
    }

    #[test]
    fn each_wanted_trigger_becomes_an_invocation_of_the_raw_body() {
        let arrival = arrival(b" raw\0");
        let invocations = arrival.invocations(&event(Some("id-1")), &[0, 1]);
        assert_eq!(invocations.len(), 2);
        let second = &invocations[1];
        assert_eq!(second.function.as_str(), "b");
        assert_eq!(&second.payload[..], b" raw\0");
        assert_eq!(second.content_type.as_deref(), Some("application/json"));
        assert_eq!(second.dedup, Some(DedupKey { scope: "hook/gh/b".to_owned(), key: "id-1".to_owned() }));
        assert_eq!(second.cause.trigger, Some(arrival.triggers[1].id));
        assert_eq!(second.cause.delivery, None);
        assert!(!second.cause.headers.contains_key("authorization"));
        assert_eq!(second.cause.normalised, Some(serde_json::json!({"provider": "github", "kind": "push"})));
        assert_eq!(arrival.invocations(&event(None), &[0])[0].dedup, None);
    }

    #[tokio::test]
    async fn large_bodies_are_examined_too() {
        for size in [0, INLINE_BODY, INLINE_BODY + 1] {
            let (arrival, examined) = arrival(&vec![0; size]).examine(Secret::new("s")).await.unwrap();
            assert_eq!(examined, Examined::Refused(Refusal::Signature("no".to_owned())));
            assert_eq!(arrival.incoming.body.len(), size);
        }
    }
}
