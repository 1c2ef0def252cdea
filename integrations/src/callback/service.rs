//! The service that tells: it takes callbacks that are due, tries each, and writes down what came of it.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use runlet_core::backoff;
use runlet_core::cause::{Cause, CauseKind};
use runlet_core::clock;
use runlet_core::engine::{DedupKey, Engine, EngineError, NewInvocation, Submission};
use runlet_core::lineage::Lineage;
use runlet_core::manifest::Destination;
use runlet_core::name::{BrokerName, FunctionName, SecretName};
use runlet_core::secret::Secrets;
use runlet_core::store::execution::Invocation;
use runlet_core::store::message::NewMessage;
use runlet_core::store::outbox::{CallbackTry, DueCallback, Verdict};
use runlet_core::store::{Store, StoreError};
use runlet_triggers::queue::{LINEAGE, Outgoing, Publishers};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::rustls::ClientConfig;
use tokio_util::sync::CancellationToken;

use super::message::{self, JSON};
use super::networks::Networks;
use super::send::{Answer, Message, send};

/// Pauses between the tries of a callback, as Standard Webhooks recommends them; after the last one it is given up.
const SCHEDULE: [u64; 9] = [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400];

/// Tries at a time.
const MOST: usize = 64;

/// What a try may take besides the time of its receiver.
const MARGIN: Duration = Duration::from_secs(30);

/// What the service works with.
#[derive(Debug)]
pub struct Options {
    /// The ledger.
    pub store: Store,
    /// Runs functions.
    pub engine: Arc<dyn Engine>,
    /// Where the secrets are that callbacks are signed with.
    pub secrets: Arc<dyn Secrets>,
    /// The brokers that ends may be published to.
    pub publishers: Publishers,
    /// Networks that are allowed besides the public ones.
    pub networks: Networks,
    /// Whom to trust for `https`; `None`: nobody.
    pub tls: Option<Arc<ClientConfig>>,
    /// How long a receiver may take.
    pub timeout: Duration,
}

/// Tells how asynchronous work ended.
#[derive(Debug)]
pub struct Service(Arc<Options>);

/// What came of a try.
struct Told {
    verdict: Verdict,
    status: Option<u16>,
    note: String,
    /// What is to be published to the built-in queue of this name, in one transaction with this.
    message: Option<Box<(String, NewMessage)>>,
}

impl Told {
    fn new(verdict: Verdict, note: impl ToString) -> Self {
        Self { verdict, status: None, note: note.to_string(), message: None }
    }

    fn failed(note: impl ToString) -> Self {
        Self::new(Verdict::Failed, note)
    }

    /// To be tried again by the schedule, unless this was the last time.
    fn again(number: u32, note: impl ToString) -> Self {
        let pause = usize::try_from(number.saturating_sub(1)).ok().and_then(|index| SCHEDULE.get(index));
        match pause {
            Some(seconds) => {
                let pause = Duration::from_secs(*seconds).mul_f64(1.0 + backoff::dice() / 5.0);
                Self::new(Verdict::Again(pause), note)
            }
            None => Self::failed(format!("{}; that was the last try", note.to_string())),
        }
    }
}

impl Service {
    /// A service with these means.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self(Arc::new(options))
    }

    /// Tells until `stop`. A try that is cut off by the end is made again later: who is told can be told twice.
    pub async fn run(self, stop: CancellationToken) {
        let mut tries = JoinSet::new();
        while !stop.is_cancelled() {
            self.0.publishers.tidy();
            let free = MOST.saturating_sub(tries.len());
            match self.claim(free).await {
                Ok(due) => {
                    for due in due {
                        tries.spawn(Arc::clone(&self.0).attempt(due));
                    }
                }
                Err(error) => tracing::warn!(%error, "could not look for callbacks"),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.0.store.callback_rung(), if tries.len() < MOST => {}
                Some(_) = tries.join_next() => {}
                () = sleep(poll_interval()) => {}
            }
        }
        let ended = async { while tries.join_next().await.is_some() {} };
        let _ = timeout(self.0.timeout, ended).await;
    }

    async fn claim(&self, free: usize) -> Result<Vec<DueCallback>, StoreError> {
        if free == 0 {
            return Ok(Vec::new());
        }
        let lease = self.0.timeout + MARGIN;
        self.0.store.claim_callbacks(u32::try_from(free).unwrap_or(u32::MAX), lease).await
    }
}

impl Options {
    async fn attempt(self: Arc<Self>, due: DueCallback) {
        let (at, begin) = (clock::now(), Instant::now());
        let told = self.tell(&due).await;
        let duration_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let tried = CallbackTry { at, status: told.status, note: told.note, duration_ms };
        let written = match told.message {
            None => self.store.callback_tried(&due, &tried, told.verdict).await,
            Some(message) => self.publish_here(&due, &tried, message).await,
        };
        tracing::info!(
            namespace = %due.namespace,
            function.name = %due.function,
            invocation.id = %due.invocation,
            number = due.number,
            status = tried.status,
            delivered = told.verdict == Verdict::Delivered,
            duration_ms,
            "a callback was tried"
        );
        if let Err(error) = written {
            tracing::warn!(invocation.id = %due.invocation, %error, "what came of a callback is not on record: it is tried again");
        }
    }

    async fn tell(&self, due: &DueCallback) -> Told {
        let found = self.store.invocation(&due.namespace, due.invocation).await;
        let invocation = match found {
            Ok(Some(invocation)) => invocation,
            Ok(None) => return Told::failed("the invocation is not on record any more"),
            Err(error) => return Told::again(due.number, error),
        };
        let message = match self.message(due, &invocation).await {
            Ok(message) => message,
            Err(error) => return Told::again(due.number, error),
        };
        match &due.destination {
            Destination::Function { function } => self.invoke(due, &invocation, function, message.webhook()).await,
            Destination::Http { url, secret, format } => {
                self.post(due, url, secret, message.for_address(*format)).await
            }
            Destination::Queue { queue, broker } => {
                self.publish(due, &invocation, (queue, broker.as_ref()), message.webhook()).await
            }
        }
    }

    async fn message(&self, due: &DueCallback, invocation: &Invocation) -> Result<message::Told, StoreError> {
        let payload = self.store.payload(&due.namespace, due.invocation).await?;
        let result = self.store.result(&due.namespace, due.invocation).await?;
        Ok(message::Told::new(due.event, invocation, payload.as_ref(), result.as_ref()))
    }

    /// Publishes it: to a broker now, to a queue here in one transaction with what came of it.
    async fn publish(
        &self,
        due: &DueCallback,
        from: &Invocation,
        (queue, broker): (&str, Option<&BrokerName>),
        body: bytes::Bytes,
    ) -> Told {
        let attributes = attributes(due, from);
        let Some(broker) = broker else {
            let content_type = Some(JSON.to_owned());
            let message = NewMessage { body, content_type, attributes, ..NewMessage::default() };
            let message = Some(Box::new((queue.to_owned(), message)));
            return Told { message, ..Told::new(Verdict::Delivered, "published") };
        };
        let id = format!("{}.{}", due.invocation, due.event.as_str());
        let message = Outgoing { id, body, content_type: JSON, attributes };
        match self.publishers.publish((&due.namespace, broker), queue, &message, self.timeout).await {
            Ok(()) => Told::new(Verdict::Delivered, "published"),
            Err(error) => Told::again(due.number, error),
        }
    }

    async fn publish_here(
        &self,
        due: &DueCallback,
        tried: &CallbackTry,
        message: Box<(String, NewMessage)>,
    ) -> Result<bool, StoreError> {
        let (queue, message) = *message;
        if let Some(written) = self.store.callback_published(due, tried, &queue, message).await? {
            return Ok(written);
        }
        let note = format!("there is no queue `{queue}`; make it, then retry this callback");
        self.store.callback_tried(due, &CallbackTry { note, ..tried.clone() }, Verdict::Failed).await
    }

    /// Invokes another function with it: once, however often it is tried.
    async fn invoke(&self, due: &DueCallback, from: &Invocation, function: &FunctionName, body: bytes::Bytes) -> Told {
        let lineage = match Lineage::step(from.cause.lineage.as_deref(), due.invocation, &due.function, function) {
            Ok(lineage) => lineage,
            Err(endless) => return Told::failed(endless),
        };
        let cause = Cause {
            lineage: Some(Box::new(lineage)),
            trace: from.cause.trace.clone(),
            ..Cause::of_kind(CauseKind::Chain)
        };
        let invocation = NewInvocation {
            namespace: due.namespace.clone(),
            function: function.clone(),
            revision: None,
            cause,
            payload: body,
            content_type: Some("application/json".to_owned()),
            dedup: Some(DedupKey { scope: format!("chain/{function}"), key: due.invocation.to_string() }),
            priority: 0,
            not_before: None,
            deadline: None,
        };
        let submission = Submission { delivery: None, invocations: vec![invocation] };
        match self.engine.submit(submission).await {
            Ok(submitted) => {
                let made = submitted.invocations.first().map(|one| one.invocation.to_string()).unwrap_or_default();
                Told::new(Verdict::Delivered, format!("invoked as {made}"))
            }
            Err(error @ (EngineError::NotFound { .. } | EngineError::Invalid(_))) => Told::failed(error),
            Err(error) => Told::again(due.number, error),
        }
    }

    async fn post(
        &self,
        due: &DueCallback,
        url: &str,
        secret: &SecretName,
        (headers, body): (Vec<(String, String)>, bytes::Bytes),
    ) -> Told {
        let Some(value) = self.secrets.get(&due.namespace, secret) else {
            let note = format!("secret `{secret}` is not configured for namespace `{}`", due.namespace);
            return Told::again(due.number, note);
        };
        let id = due.invocation.to_string();
        let message = Message { id: &id, url, headers, body };
        let sent = timeout(self.timeout, send(message, &value, &self.networks, self.tls.as_ref())).await;
        match sent {
            Ok(Ok(answer)) => answered(due.number, answer),
            Ok(Err(error)) if error.is_final() => Told::failed(error),
            Ok(Err(error)) => Told::again(due.number, error),
            Err(_) => Told::again(due.number, format!("no answer within {} s", self.timeout.as_secs())),
        }
    }
}

/// What goes with a message about an end: who ended and how, for filters, and where it comes from, so that no loop goes on for ever.
fn attributes(due: &DueCallback, from: &Invocation) -> BTreeMap<String, String> {
    let lineage = Lineage::after(from.cause.lineage.as_deref(), due.invocation, &due.function);
    let mut attributes = BTreeMap::from([
        ("runlet.event".to_owned(), due.event.as_str().to_owned()),
        ("runlet.function".to_owned(), due.function.to_string()),
        ("runlet.invocation".to_owned(), due.invocation.to_string()),
        (LINEAGE.to_owned(), serde_json::to_string(&lineage).unwrap_or_default()),
    ]);
    if let Some(trace) = &from.cause.trace {
        attributes.insert("traceparent".to_owned(), trace.parent.to_string());
        attributes.extend(trace.state.clone().map(|state| ("tracestate".to_owned(), state)));
    }
    attributes
}

/// What follows from an answer.
fn answered(number: u32, answer: Answer) -> Told {
    let Answer { status, retry_after } = answer;
    let code = status.as_u16();
    let told = match code {
        200..=299 => Told::new(Verdict::Delivered, "taken"),
        410 => Told::failed("its receiver says that it is gone: not tried again"),
        300..=399 => Told::again(number, "redirects are not followed"),
        _ => Told::again(number, "not taken"),
    };
    // Put off, it still is one of its tries.
    let verdict = match (told.verdict, retry_after) {
        (Verdict::Again(_), Some(wanted)) => Verdict::Again(wanted),
        (verdict, _) => verdict,
    };
    Told { verdict, status: Some(code), ..told }
}

/// About a second, and not the same for all servers.
fn poll_interval() -> Duration {
    Duration::from_millis(750 + RandomState::new().hash_one(0) % 500)
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;

    use super::*;

    fn verdict(number: u32, status: u16, retry_after: Option<u64>) -> Verdict {
        let status = StatusCode::from_u16(status).unwrap();
        answered(number, Answer { status, retry_after: retry_after.map(Duration::from_secs) }).verdict
    }

    #[test]
    fn what_follows_from_an_answer() {
        for status in [200, 202, 204] {
            assert_eq!(verdict(1, status, None), Verdict::Delivered);
        }
        assert_eq!(verdict(1, 410, Some(5)), Verdict::Failed);
        assert_eq!(verdict(1, 429, Some(7)), Verdict::Again(Duration::from_secs(7)));
        for status in [301, 307, 400, 404, 500, 503] {
            let Verdict::Again(pause) = verdict(1, status, None) else { panic!("{status} is tried again") };
            assert!((5..=6).contains(&pause.as_secs()), "{status}: {pause:?}");
        }
        assert_eq!(verdict(10, 500, Some(7)), Verdict::Failed, "ten tries are all");
    }
}
