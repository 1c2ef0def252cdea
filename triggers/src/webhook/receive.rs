//! The receiver: takes a request on a hook path and answers once everything about it is on record.
//!
//! It owns the order of things (look up, examine, record or submit) and knows neither HTTP nor any sender.

use std::sync::Arc;

use runlet_core::engine::{Accepted, Engine, Submission};
use runlet_core::id::DeliveryId;
use runlet_core::manifest::AdapterKind;
use runlet_core::metric;
use runlet_core::name::{HookPath, Namespace};
use runlet_core::secret::{Secret, Secrets};
use runlet_core::store::Store;
use runlet_core::store::delivery::Verdict;
use runlet_core::store::function::HookTrigger;

use super::adapter::{AdapterOf, Refusal};
use super::arrival::{Arrival, Incoming};
use super::event::{Event, Label};
use super::examine::Examined;
use super::failure::{Failure, Refused};
use super::fingerprint::FingerprintKey;

/// Bytes of strangers' bodies that are kept per hook and day.
const STRANGER_BUDGET: u64 = 10 << 20;

/// What the sender is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Committed: these invocations run, or ran already.
    Accepted {
        /// The delivery.
        delivery: DeliveryId,
        /// Its invocations.
        invocations: Vec<Accepted>,
    },
    /// Verified, on record, and nobody wants it.
    Ignored {
        /// The delivery.
        delivery: DeliveryId,
        /// Why.
        reason: String,
    },
    /// The sender tried its hook.
    Pong {
        /// The delivery.
        delivery: DeliveryId,
    },
}

/// Takes requests on hook paths. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Receiver {
    engine: Arc<dyn Engine>,
    store: Store,
    secrets: Arc<dyn Secrets>,
    adapters: AdapterOf,
    key: FingerprintKey,
}

impl Receiver {
    /// A receiver that submits to `engine`; `key` fingerprints credentials on record.
    #[must_use]
    pub fn new(
        engine: Arc<dyn Engine>,
        store: Store,
        secrets: Arc<dyn Secrets>,
        adapters: AdapterOf,
        key: FingerprintKey,
    ) -> Self {
        Self { engine, store, secrets, adapters, key }
    }

    /// Takes a request. When it returns `Ok`, the delivery and its invocations are committed.
    ///
    /// # Errors
    /// [`Refused`] with the code to answer: `not_found` for an unknown path (nothing is stored), `bad_signature`,
    /// `bad_json` and `invalid` with the refusal on record, otherwise whatever kept it from being accepted.
    pub async fn receive(&self, namespace: Namespace, path: HookPath, incoming: Incoming) -> Result<Answer, Refused> {
        let first = self.attempt(&namespace, &path, incoming.clone()).await;
        let last = match first {
            // A function was removed between the look-up and the commit: what is left of the hook decides.
            Err(Failure::HookChanged) => self.attempt(&namespace, &path, incoming).await,
            other => other,
        };
        last.map_err(Failure::refused)
    }

    async fn attempt(&self, namespace: &Namespace, path: &HookPath, incoming: Incoming) -> Result<Answer, Failure> {
        let triggers = self.store.hook(namespace, path).await?;
        // All triggers of a path share adapter and secret: the store refuses a deploy that would change that.
        let Some(first) = triggers.first() else {
            return Err(Failure::UnknownHook(namespace.clone(), path.clone()));
        };
        let secret = self.secret(namespace, first)?;
        let kind = first.spec.adapter;
        let arrival = Arrival {
            namespace: namespace.clone(),
            path: path.clone(),
            kind,
            adapter: (self.adapters)(kind),
            triggers,
            incoming,
        };
        let (arrival, examined) = arrival.examine(secret).await?;
        match examined {
            Examined::Refused(refusal) => Err(self.refuse(&arrival, refusal).await?),
            Examined::Ping(event) => {
                let delivery =
                    self.ignore(&arrival, event.label, vec!["a ping: answered, nothing runs".to_owned()]).await?;
                Ok(Answer::Pong { delivery })
            }
            Examined::Event { event, wanted, reasons } if wanted.is_empty() => {
                let reason = reasons.join("; ");
                let delivery = self.ignore(&arrival, event.label, reasons).await?;
                Ok(Answer::Ignored { delivery, reason })
            }
            Examined::Event { event, wanted, reasons } => self.submit(&arrival, event, &wanted, reasons).await,
        }
    }

    /// The hook's secret; that of a public hook is empty. Elsewhere an empty one would let everybody sign: it counts as
    /// none.
    fn secret(&self, namespace: &Namespace, trigger: &HookTrigger) -> Result<Secret, Failure> {
        let name = trigger.spec.secret.as_ref();
        if name.is_none() && trigger.spec.adapter == AdapterKind::None {
            return Ok(Secret::new(""));
        }
        let secret = name.and_then(|name| self.secrets.get(namespace, name));
        secret.filter(|secret| !secret.expose().is_empty()).ok_or_else(|| {
            tracing::error!(
                %namespace,
                hook.path = %trigger.spec.path,
                secret.name = name.map(tracing::field::display),
                "a delivery came for a hook whose secret is missing or empty; configure [secrets] for this namespace"
            );
            Failure::NoSecret
        })
    }

    async fn submit(
        &self,
        arrival: &Arrival,
        event: Event,
        wanted: &[usize],
        reasons: Vec<String>,
    ) -> Result<Answer, Failure> {
        let invocations = arrival.invocations(&event, wanted);
        let delivery = arrival.delivery(&self.key, event.label, Verdict::Accepted, reasons);
        let submitted = self.engine.submit(Submission { delivery: Some(delivery), invocations }).await?;
        let delivery = submitted.delivery.ok_or(Failure::NotRecorded)?;
        let repeat = submitted.invocations.iter().all(|accepted| accepted.repeated);
        metric::delivered(if repeat { Verdict::Duplicate } else { Verdict::Accepted });
        tracing::info!(
            delivery.id = %delivery,
            namespace = %arrival.namespace,
            hook.path = %arrival.path,
            invocations = submitted.invocations.len(),
            repeated = submitted.invocations.iter().filter(|accepted| accepted.repeated).count(),
            "delivery accepted"
        );
        Ok(Answer::Accepted { delivery, invocations: submitted.invocations })
    }

    /// Puts a refused delivery on record and returns the refusal as the failure that it is.
    async fn refuse(&self, arrival: &Arrival, refusal: Refusal) -> Result<Failure, Failure> {
        // What the headers claim helps to find the delivery at its sender; a broken header is left out of the record.
        let label = arrival.adapter.label(&arrival.incoming.headers).unwrap_or_default();
        let budget = arrival.is_strangers(refusal.verdict()).then_some(STRANGER_BUDGET);
        let delivery = arrival.delivery(&self.key, label, refusal.verdict(), vec![refusal.to_string()]);
        let id = self.store.refuse_delivery(delivery, budget).await?;
        metric::delivered(refusal.verdict());
        tracing::warn!(
            delivery.id = %id,
            namespace = %arrival.namespace,
            hook.path = %arrival.path,
            reason = %refusal,
            "delivery refused"
        );
        Ok(Failure::Refusal(refusal, id))
    }

    /// Puts a verified delivery on record that starts nothing.
    async fn ignore(&self, arrival: &Arrival, label: Label, reasons: Vec<String>) -> Result<DeliveryId, Failure> {
        let budget = arrival.is_strangers(Verdict::Ignored).then_some(STRANGER_BUDGET);
        let delivery = arrival.delivery(&self.key, label, Verdict::Ignored, reasons);
        let id = self.store.refuse_delivery(delivery, budget).await?;
        metric::delivered(Verdict::Ignored);
        let (namespace, path) = (&arrival.namespace, &arrival.path);
        tracing::info!(delivery.id = %id, %namespace, hook.path = %path, "delivery ignored");
        Ok(id)
    }
}
