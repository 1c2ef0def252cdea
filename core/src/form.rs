//! Bodies of type `application/x-www-form-urlencoded`: finds one field.
//!
//! Knows the encoding and nothing of what the fields mean.

/// Content type of a form body, without parameters.
pub const CONTENT_TYPE: &str = "application/x-www-form-urlencoded";

/// The decoded value of the first field named `name`; `None` if there is no such field or its encoding is malformed.
#[must_use]
pub fn field(body: &[u8], name: &str) -> Option<Vec<u8>> {
    body.split(|byte| *byte == b'&').find_map(|pair| {
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        let key = decode(parts.next().unwrap_or_default());
        (key.as_deref() == Some(name.as_bytes())).then(|| decode(parts.next().unwrap_or_default()))
    })?
}

/// Turns `+` into a space and `%XX` into its byte; `None` for a `%` without two hex digits.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => digit(*rest.next()?)? << 4 | digit(*rest.next()?)?,
            other => *other,
        });
    }
    Some(out)
}

const fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(bytes: &[u8]) -> String {
        bytes
            .iter()
            .map(|byte| match byte {
                b' ' => "+".to_owned(),
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(*byte).to_string(),
                other => format!("%{other:02X}"),
            })
            .collect()
    }

    #[test]
    fn the_first_field_of_the_name_is_decoded() {
        assert_eq!(field(b"payload=%7B%22a%22%3a+1%7d", "payload").as_deref(), Some(&b"{\"a\": 1}"[..]));
        assert_eq!(field(b"x=1&payload=a&payload=b", "payload").as_deref(), Some(&b"a"[..]));
        assert_eq!(field(b"%70ayload=a=b", "payload").as_deref(), Some(&b"a=b"[..]));
        assert_eq!(field(b"payload", "payload").as_deref(), Some(&b""[..]));
        assert_eq!(field(b"payload=%00%ff", "payload").as_deref(), Some(&b"\0\xff"[..]));
    }

    #[test]
    fn what_is_absent_or_malformed_is_none() {
        for body in [
            &b""[..],
            b"payloads=1",
            b"Payload=1",
            b"&&=&",
            b"payload=%",
            b"payload=%4",
            b"payload=%4g",
            b"payload=%+1",
        ] {
            assert_eq!(field(body, "payload"), None, "{}", String::from_utf8_lossy(body));
        }
        assert_eq!(
            field(b"payload=%zz&payload=good", "payload"),
            None,
            "a malformed first field hides nothing behind it"
        );
        assert_eq!(field(b"%zz=1&payload=a", "payload").as_deref(), Some(&b"a"[..]), "another field may be malformed");
    }

    proptest! {
        #[test]
        fn whatever_is_encoded_comes_back(value: Vec<u8>, other: Vec<u8>) {
            let body = format!("other={}&payload={}&payload=z", encode(&other), encode(&value));
            prop_assert_eq!(field(body.as_bytes(), "payload"), Some(value));
        }

        #[test]
        fn any_body_is_survived(body: Vec<u8>) {
            let _ = field(&body, "payload");
        }
    }
}
