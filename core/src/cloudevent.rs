//! CloudEvents 1.0 over HTTP: reading and writing events in binary and structured mode.
//!
//! In *binary* mode the attributes are headers `ce-*` and the body is the data; in *structured* mode the body is a JSON document with
//! both. Values of headers are percent-encoded where they are not plain ASCII. Batches are not read: nobody here asks for them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value};

/// Content type of structured mode.
pub const STRUCTURED: &str = "application/cloudevents+json";

/// The version that is spoken here.
const VERSION: &str = "1.0";

/// Longest value of an attribute, bytes.
const LONGEST: usize = 4096;

/// Most attributes of an event.
const ATTRIBUTES: usize = 64;

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CloudEvent {
    /// Names it, together with `source`.
    pub id: String,
    /// Where it happened, a URI reference.
    pub source: String,
    /// What happened.
    pub kind: String,
    /// What the data is; none in structured mode means JSON.
    pub content_type: Option<String>,
    /// All other attributes: `time`, `subject`, `dataschema`, and extensions.
    pub attributes: BTreeMap<String, String>,
    /// The data; empty: there is none.
    pub data: Bytes,
}

/// Something that says it is a CloudEvent, and is none. The texts never hold a value of the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadEvent {
    /// An attribute breaks a rule.
    #[error("{0}")]
    Attribute(String),
    /// The document is none.
    #[error("the body is no CloudEvent in JSON: {0}")]
    Document(String),
    /// A format or a batch that nobody asked for.
    #[error("only single events in binary mode, or in structured mode as {STRUCTURED}, are taken")]
    Format,
}

impl CloudEvent {
    /// Reads a request; `headers` has each name in lower case, once. `None`: it is no CloudEvent and does not say that it is.
    ///
    /// # Errors
    /// [`BadEvent`] for what says that it is one and breaks a rule.
    pub fn read<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>, body: &Bytes) -> Result<Option<Self>, BadEvent> {
        let mut content_type = None;
        let mut attributes = BTreeMap::new();
        for (name, value) in headers {
            if name == "content-type" {
                content_type = Some(value.to_owned());
            } else if let Some(name) = name.strip_prefix("ce-") {
                attributes.insert(name.to_owned(), value.to_owned());
            }
        }
        let media = content_type.as_deref().map(|text| text.split(';').next().unwrap_or_default().trim());
        let media = media.map(str::to_ascii_lowercase).unwrap_or_default();
        if media == STRUCTURED {
            return structured(body).map(Some);
        }
        if media.starts_with("application/cloudevents") {
            return Err(BadEvent::Format);
        }
        if !attributes.contains_key("specversion") {
            return Ok(None);
        }
        let mut decoded = BTreeMap::new();
        for (name, value) in attributes {
            let value = decode(&value).ok_or_else(|| {
                BadEvent::Attribute(format!("header ce-{} is not percent-encoded UTF-8", shown(&name)))
            })?;
            decoded.insert(name, value);
        }
        if decoded.contains_key("datacontenttype") {
            let message = "header ce-datacontenttype must not be there: Content-Type says what the data is";
            return Err(BadEvent::Attribute(message.to_owned()));
        }
        from_parts(decoded, content_type, body.clone()).map(Some)
    }

    /// Headers and body in binary mode.
    #[must_use]
    pub fn binary(&self) -> (Vec<(String, String)>, Bytes) {
        let mut headers: Vec<(String, String)> =
            self.all().map(|(name, value)| (format!("ce-{name}"), encode(value))).collect();
        headers.extend(self.content_type.clone().map(|kind| ("content-type".to_owned(), kind)));
        (headers, self.data.clone())
    }

    /// The document of structured mode.
    #[must_use]
    pub fn structured(&self) -> Value {
        let mut document: Map<String, Value> =
            self.all().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
        document.extend(self.content_type.clone().map(|kind| ("datacontenttype".to_owned(), kind.into())));
        if !self.data.is_empty() {
            let (key, data) = self.data_as_json();
            document.insert(key.to_owned(), data);
        }
        Value::Object(document)
    }

    /// The data: JSON as it is, other text as a string, all else as base64.
    fn data_as_json(&self) -> (&'static str, Value) {
        let Ok(text) = std::str::from_utf8(&self.data) else {
            return ("data_base64", STANDARD.encode(&self.data).into());
        };
        let json = self.content_type.as_deref().is_none_or(is_json).then(|| serde_json::from_str(text).ok()).flatten();
        match json {
            Some(json) => ("data", json),
            // Text that says that it is JSON and is not would be taken for a JSON string.
            None if self.content_type.as_deref().is_none_or(is_json) => ("data_base64", STANDARD.encode(text).into()),
            None => ("data", text.into()),
        }
    }

    fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        let required = [
            ("specversion", VERSION),
            ("id", self.id.as_str()),
            ("source", self.source.as_str()),
            ("type", self.kind.as_str()),
        ];
        required.into_iter().chain(self.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }
}

/// Whether a content type is one of JSON.
fn is_json(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media == "application/json" || media == "text/json" || media.ends_with("+json")
}

/// A name as a message may repeat it.
fn shown(name: &str) -> String {
    name.chars().take(40).collect()
}

fn structured(body: &Bytes) -> Result<CloudEvent, BadEvent> {
    let text = std::str::from_utf8(body).map_err(|_| BadEvent::Document("it is not UTF-8".to_owned()))?;
    let document: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| BadEvent::Document(error.to_string()))?;
    let (mut attributes, mut data) = (BTreeMap::new(), None);
    for (name, value) in document {
        let value = match (name.as_str(), value) {
            ("data", Value::Null) | (_, Value::Null) => continue,
            ("data" | "data_base64", _) if data.is_some() => {
                return Err(BadEvent::Document("data and data_base64 exclude each other".to_owned()));
            }
            ("data", value) => {
                data = Some(Err(value));
                continue;
            }
            ("data_base64", Value::String(text)) => {
                let bytes =
                    STANDARD.decode(text).map_err(|_| BadEvent::Document("data_base64 is no base64".to_owned()))?;
                data = Some(Ok(Bytes::from(bytes)));
                continue;
            }
            (_, Value::String(text)) => text,
            (_, Value::Bool(truth)) => truth.to_string(),
            (_, Value::Number(number)) if number.is_i64() => number.to_string(),
            _ => {
                let message = format!("attribute {} is no string, whole number or truth value", shown(&name));
                return Err(BadEvent::Attribute(message));
            }
        };
        attributes.insert(name, value);
    }
    let content_type = attributes.remove("datacontenttype");
    let data = match data {
        None => Bytes::new(),
        Some(Ok(bytes)) => bytes,
        // A string is the text itself where the data is no JSON.
        Some(Err(Value::String(text))) if content_type.as_deref().is_some_and(|kind| !is_json(kind)) => text.into(),
        Some(Err(value)) => value.to_string().into(),
    };
    from_parts(attributes, content_type.or_else(|| Some("application/json".to_owned())), data)
}

fn from_parts(
    mut attributes: BTreeMap<String, String>,
    content_type: Option<String>,
    data: Bytes,
) -> Result<CloudEvent, BadEvent> {
    if attributes.len() > ATTRIBUTES {
        return Err(BadEvent::Attribute(format!("an event has at most {ATTRIBUTES} attributes")));
    }
    for (name, value) in &attributes {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            return Err(BadEvent::Attribute(format!("`{}` is no name of an attribute: use a-z and 0-9", shown(name))));
        }
        if value.len() > LONGEST {
            return Err(BadEvent::Attribute(format!("attribute {} is longer than {LONGEST} bytes", shown(name))));
        }
    }
    match attributes.remove("specversion").as_deref() {
        Some(VERSION) => {}
        Some(_) => return Err(BadEvent::Attribute(format!("only specversion {VERSION} is taken"))),
        None => return Err(BadEvent::Attribute("attribute specversion is missing".to_owned())),
    }
    let mut required = |name: &str| {
        let value = attributes.remove(name).filter(|value| !value.is_empty());
        value.ok_or_else(|| BadEvent::Attribute(format!("attribute {name} is missing or empty")))
    };
    let (id, source, kind) = (required("id")?, required("source")?, required("type")?);
    Ok(CloudEvent { id, source, kind, content_type, attributes, data })
}

/// Percent-encodes what a header cannot hold as it is: space, `"`, `%`, and all that is not visible ASCII.
fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'"' | b'%') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Takes quotes and percent-encoding off. `None` for a broken escape, and for what is no UTF-8 then.
fn decode(text: &str) -> Option<String> {
    let plain = match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(quoted) => unquote(quoted)?,
        None => text.to_owned(),
    };
    // What came as other bytes than UTF-8 was replaced on its way here.
    if plain.contains('\u{fffd}') {
        return None;
    }
    let mut bytes = plain.bytes();
    let mut out = Vec::with_capacity(plain.len());
    while let Some(byte) = bytes.next() {
        out.push(if byte == b'%' {
            let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            (hex(bytes.next()?)? << 4) | hex(bytes.next()?)?
        } else {
            byte
        });
    }
    String::from_utf8(out).ok()
}

/// A quoted string without its backslashes.
fn unquote(text: &str) -> Option<String> {
    let mut chars = text.chars();
    let mut out = String::with_capacity(text.len());
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(chars.next()?),
            '"' => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: [(&str, &str); 4] = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];

    fn read(more: &[(&str, &str)], body: &str) -> Result<Option<CloudEvent>, BadEvent> {
        CloudEvent::read(HEAD.iter().chain(more).copied(), &Bytes::from(body.to_owned()))
    }

    #[test]
    fn the_vector_of_the_specification_goes_both_ways() {
        let (plain, encoded) = ("Euro € 😀", "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(encode(plain), encoded);
        for text in [encoded.to_owned(), encoded.to_lowercase().replace("euro", "Euro"), format!("\"{encoded}\"")] {
            assert_eq!(decode(&text).as_deref(), Some(plain), "{text}");
        }
        assert_eq!(decode(r#""a \"b\" \\""#).as_deref(), Some(r#"a "b" \"#));
        for bad in ["%C0%A0", "%", "%2", "%zz", "%ff", "\u{fffd}", "\"a\"b\"", "\"a\\\""] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn binary_mode_has_its_attributes_in_headers() {
        let event = read(&[("ce-subject", "a%20b"), ("content-type", "text/plain")], "hi").unwrap().unwrap();
        assert_eq!((event.id.as_str(), event.kind.as_str(), &event.data[..]), ("1", "t", &b"hi"[..]));
        assert_eq!(event.attributes["subject"], "a b");
        assert_eq!(event.structured()["data"], "hi");
        assert!(read(&[("ce-datacontenttype", "text/plain")], "").is_err());
        assert!(read(&[("ce-specversion", "0.3")], "").is_err());
        assert!(read(&[("ce-Up", "x")], "").is_err());
        assert_eq!(read(&[("content-type", "application/cloudevents-batch+json")], "[]"), Err(BadEvent::Format));
        assert_eq!(CloudEvent::read([("x-event", "a")].into_iter(), &Bytes::new()), Ok(None));
    }

    #[test]
    fn structured_mode_has_it_all_in_the_body() {
        let kind = [("content-type", "application/cloudevents+json; charset=utf-8")];
        let ask = |body: &str| CloudEvent::read(kind.into_iter(), &Bytes::from(body.to_owned()));
        let head = r#""specversion": "1.0", "id": "1", "source": "s", "type": "t""#;
        let event = ask(&format!("{{{head}, \"n\": 7, \"data\": {{\"a\": 1}}}}")).unwrap().unwrap();
        assert_eq!((&event.data[..], event.attributes["n"].as_str()), (&b"{\"a\":1}"[..], "7"));
        let text = ask(&format!("{{{head}, \"datacontenttype\": \"text/xml\", \"data\": \"<a/>\"}}")).unwrap().unwrap();
        assert_eq!(&text.data[..], b"<a/>");
        let bytes = ask(&format!("{{{head}, \"data_base64\": \"/w==\"}}")).unwrap().unwrap();
        assert_eq!(&bytes.data[..], b"\xff");
        for bad in [
            "",
            "[]",
            "{}",
            &format!("{{{head}, \"x\": []}}"),
            &format!("{{{head}, \"data\": 1, \"data_base64\": \"\"}}"),
        ] {
            assert!(ask(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(id in ".{1,20}", source in ".{1,20}", subject in ".{0,20}", data: Vec<u8>) {
            let attributes = BTreeMap::from([("subject".to_owned(), subject)]);
            let content_type = Some("application/octet-stream".to_owned());
            let event = CloudEvent { id, source, kind: "t".to_owned(), content_type, attributes, data: data.into() };
            let (headers, body) = event.binary();
            let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            if !(event.id.contains('\u{fffd}') || event.source.contains('\u{fffd}') || event.attributes["subject"].contains('\u{fffd}')) {
                prop_assert_eq!(CloudEvent::read(headers.into_iter(), &body).unwrap().unwrap(), event.clone());
            }
            let document = Bytes::from(event.structured().to_string());
            let read = CloudEvent::read([("content-type", STRUCTURED)].into_iter(), &document).unwrap().unwrap();
            prop_assert_eq!(read, event);
        }
    }
}
