//! How the body of an invocation becomes the event.

use bytes::Bytes;
use runlet_core::form;

use crate::session::BodyKind;

/// The kind of the body, and the bytes that the runner is given: for a form they are its field `payload`.
pub(super) fn event(content_type: Option<&str>, body: &Bytes) -> (BodyKind, Bytes) {
    if body.is_empty() {
        return (BodyKind::None, Bytes::new());
    }
    let essence = content_type.map(|text| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let candidate = match essence.as_deref() {
        Some(form::CONTENT_TYPE) => form::field(body, "payload").map(Bytes::from),
        None => Some(body.clone()),
        Some(essence) => is_json(essence).then(|| body.clone()),
    };
    match candidate {
        Some(json) if parses(&json) => (BodyKind::Json, json),
        _ => (BodyKind::Base64, body.clone()),
    }
}

fn is_json(essence: &str) -> bool {
    matches!(essence, "application/json" | "text/json") || essence.ends_with("+json")
}

fn parses(body: &[u8]) -> bool {
    // By way of `str`: what is skipped inside a JSON string is not looked at otherwise.
    std::str::from_utf8(body).is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(content_type: Option<&str>, body: &'static [u8]) -> BodyKind {
        event(content_type, &Bytes::from_static(body)).0
    }

    #[test]
    fn json_is_json_only_if_it_is() {
        for content_type in [None, Some("application/json"), Some("Application/JSON; charset=utf-8"), Some("a/b+json")]
        {
            assert_eq!(kind(content_type, b"{\"a\": [1, null]}"), BodyKind::Json, "{content_type:?}");
            assert_eq!(kind(content_type, b"{\"a\": "), BodyKind::Base64, "{content_type:?}");
            assert_eq!(kind(content_type, b"\"\xff\""), BodyKind::Base64, "{content_type:?}");
            assert_eq!(kind(content_type, b"1 2"), BodyKind::Base64, "{content_type:?}");
            assert_eq!(kind(content_type, b""), BodyKind::None, "{content_type:?}");
        }
    }

    #[test]
    fn other_types_are_left_alone() {
        assert_eq!(kind(Some("text/plain"), b"1"), BodyKind::Base64);
        assert_eq!(kind(Some("application/octet-stream"), b"{}"), BodyKind::Base64);
        assert_eq!(kind(Some(""), b"{}"), BodyKind::Base64);
    }

    #[test]
    fn a_form_is_its_payload_or_itself() {
        let body = Bytes::from_static(b"x=1&payload=%7B%22a%22%3A+1%7D");
        let (kind, bytes) = event(Some("application/x-www-form-urlencoded"), &body);
        assert_eq!((kind, &bytes[..]), (BodyKind::Json, &b"{\"a\": 1}"[..]));
        for body in [&b"x=1"[..], b"payload=%7", b"payload=nope"] {
            let body = Bytes::from_static(body);
            assert_eq!(event(Some("application/x-www-form-urlencoded"), &body), (BodyKind::Base64, body));
        }
    }
}
