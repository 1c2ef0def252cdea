//! `envelope = "cloudevents"`: the event that code is given, whatever door it came by.

use bytes::Bytes;
use runlet_core::cloudevent::CloudEvent;

use super::job::Job;

/// The document: the CloudEvent that came, or one that tells of what came.
pub(super) fn document(job: &Job) -> Bytes {
    let headers = job.cause.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let content_type = job.content_type.as_deref().map(|kind| ("content-type", kind));
    let came = CloudEvent::read(headers.chain(content_type), &job.payload).ok().flatten();
    came.unwrap_or_else(|| made(job)).structured().to_string().into()
}

fn made(job: &Job) -> CloudEvent {
    let kind = job.cause.kind.as_str();
    let from = job.cause.trigger.map_or_else(|| job.function.to_string(), |trigger| trigger.to_string());
    let at = job.invocation.created_at().map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true));
    CloudEvent {
        id: job.invocation.to_string(),
        source: format!("/{}/{kind}/{from}", job.namespace),
        kind: format!("runlet.{kind}"),
        content_type: job.content_type.clone(),
        attributes: at.map(|at| ("time".to_owned(), at)).into_iter().collect(),
        data: job.payload.clone(),
    }
}
