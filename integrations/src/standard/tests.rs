//! The adapter against both published vectors and against what nobody should accept.

use bytes::Bytes;
use proptest::prelude::*;
use runlet_core::clock::Timestamp;

use super::*;

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const OTHER: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Secret, id, time, body and signature as the reference libraries publish them.
const VECTORS: [(&str, &str, i64, &str, &str); 2] = [
    (
        SECRET,
        "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
        1_649_367_553,
        r#"{"email":"test@example.com","username":"test_user"}"#,
        "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
    ),
    (
        OTHER,
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1_614_265_330,
        r#"{"test": 2432232314}"#,
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    ),
];

fn ask(secret: &str, headers: &[(&str, String)], body: &str, at: i64) -> Result<(), String> {
    let headers: Headers = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (body, at) = (Bytes::copy_from_slice(body.as_bytes()), Timestamp::from_timestamp(at, 0).unwrap());
    let request = Request { headers: &headers, body: &body, at };
    Standard.verify(&request, &Secret::new(secret)).map_err(|refusal| refusal.to_string())
}

fn sent(id: &str, timestamp: &str, signature: &str) -> Vec<(&'static str, String)> {
    vec![
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", timestamp.to_owned()),
        ("webhook-signature", signature.to_owned()),
    ]
}

#[test]
fn both_published_vectors_verify() {
    for (secret, id, time, body, signature) in VECTORS {
        let headers = sent(id, &time.to_string(), signature);
        assert_eq!(ask(secret, &headers, body, time), Ok(()));
        assert_eq!(signed::sign(secret, id, time, body.as_bytes()), headers);
        assert!(ask(secret, &headers, &body.replace('t', "T"), time).is_err());
        assert!(ask(secret, &sent("msg_other", &time.to_string(), signature), body, time).is_err());
        assert!(ask(secret, &sent(id, &(time + 1).to_string(), signature), body, time).is_err());
    }
}

#[test]
fn any_one_good_signature_under_any_key_is_enough() {
    let (_, id, time, body, good) = VECTORS[0];
    let (_, _, _, _, bad) = VECTORS[1];
    let time_text = time.to_string();
    for several in
        [format!("{bad} {good}"), format!("{good} {bad}"), format!("v1a,xx v2,yy {good}"), format!(" {good} ")]
    {
        assert_eq!(ask(SECRET, &sent(id, &time_text, &several), body, time), Ok(()), "{several}");
    }
    for keys in [format!("{OTHER}\n{SECRET}\n"), format!("\r\n {SECRET} \r\n{OTHER}")] {
        assert_eq!(ask(&keys, &sent(id, &time_text, good), body, time), Ok(()));
    }
    assert!(ask(OTHER, &sent(id, &time_text, good), body, time).is_err());
}

#[test]
fn time_is_taken_within_five_minutes_both_ways() {
    let (secret, id, time, body, signature) = VECTORS[0];
    let headers = sent(id, &time.to_string(), signature);
    for (at, taken) in [(0, true), (300, true), (-300, true), (301, false), (-301, false)] {
        assert_eq!(ask(secret, &headers, body, time + at).is_ok(), taken, "{at}");
    }
    assert!(ask(secret, &headers, body, time + 1000).unwrap_err().contains("signed 1000 s before it came"));
    // Signed well, but no time.
    for timestamp in ["+1649367553", "1649367553.5", "soon", "99999999999999999999"] {
        use base64::Engine as _;
        let key = base64::engine::general_purpose::STANDARD.decode(&SECRET[6..]).unwrap();
        let mut mac = <hmac::Hmac<sha2::Sha256> as hmac::KeyInit>::new_from_slice(&key).unwrap();
        hmac::Mac::update(&mut mac, format!("{id}.{timestamp}.{body}").as_bytes());
        let bytes = hmac::Mac::finalize(mac).into_bytes();
        let signature = format!("v1,{}", base64::engine::general_purpose::STANDARD.encode(bytes));
        let error = ask(secret, &sent(id, timestamp, &signature), body, time).unwrap_err();
        assert!(error.contains("does not hold seconds"), "{error}");
    }
}

#[test]
fn what_is_missing_or_malformed_is_named() {
    let (secret, id, time, body, good) = VECTORS[0];
    let all = sent(id, &time.to_string(), good);
    for missing in 0..3 {
        let mut headers = all.clone();
        let (name, _) = headers.remove(missing);
        let error = ask(secret, &headers, body, time).unwrap_err();
        assert!(error.contains(name) && error.contains("missing"), "{error}");
        let twice: Vec<_> = all.iter().chain([&all[missing]]).cloned().collect();
        assert!(ask(secret, &twice, body, time).unwrap_err().contains("came 2 times"));
    }
    let many = vec![good; 33].join(" ");
    for (signature, expected) in [
        ("", "missing"),
        ("v1,", "without 32 bytes"),
        ("v1", "no signature of the scheme"),
        ("v1a,AAAA", "no signature of the scheme"),
        (&good[..good.len() - 4], "without 32 bytes"),
        (&format!("{good}=="), "without 32 bytes"),
        (&good.replace("v1,", "V1,"), "no signature of the scheme"),
        (&good.replace("v1,", ""), "no signature of the scheme"),
        (&many, "holds 33 signatures"),
    ] {
        let error = ask(secret, &sent(id, &time.to_string(), signature), body, time).unwrap_err();
        assert!(error.contains(expected), "{signature}: {error}");
    }
}

#[test]
fn only_real_keys_are_usable() {
    assert_eq!(Standard.usable(&Secret::new(format!("{SECRET}\n{OTHER}"))), Ok(()));
    for bad in [
        "",
        "\n",
        "hunter2",
        "whsec_",
        "whsec_!!!!",
        "whsec_AAAAAAAAAAAAAAAAAAAAAA==",
        "C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\nhunter2",
    ] {
        let error = Standard.usable(&Secret::new(bad)).unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
        let (_, id, time, body, good) = VECTORS[0];
        assert!(ask(bad, &sent(id, &time.to_string(), good), body, time).is_err(), "{bad}");
    }
}

#[test]
fn the_type_of_the_body_is_the_events_name() {
    let read = |content_type: Option<&str>, body: &'static [u8]| {
        let pairs = content_type.map(|value| ("content-type", value));
        let headers: Headers = pairs.into_iter().chain([("webhook-id", "msg_1"), ("x-event", "unsigned")]).collect();
        Standard.read(&Request { headers: &headers, body: &Bytes::from_static(body), at: runlet_core::clock::now() })
    };
    let json = Some("application/json");
    for (content_type, body, name) in [
        (json, &br#"{"type": "invoice.paid", "data": {}}"#[..], Some("invoice.paid")),
        (None, br#"{"type": "invoice.paid"}"#, Some("invoice.paid")),
        (json, br#"{"type": "two words"}"#, None),
        (json, br#"{"type": 7}"#, None),
        (json, b"[1]", None),
        (None, b"\xff", None),
    ] {
        let event = read(content_type, body).unwrap();
        assert_eq!(event.label, Label { event: name.map(str::to_owned), provider_id: Some("msg_1".to_owned()) });
        assert_eq!(event.payload.is_some(), body != b"\xff");
    }
    assert!(matches!(read(json, b"{"), Err(Refusal::Body(_))));
}

proptest! {
    #[test]
    fn one_flipped_bit_anywhere_is_refused(body in ".{1,100}", at: prop::sample::Index, bit in 0..7u8) {
        let headers = signed::sign(SECRET, "msg_1", 1000, body.as_bytes());
        prop_assert_eq!(ask(SECRET, &headers, &body, 1000), Ok(()));
        let mut other = body.clone().into_bytes();
        let place = at.index(other.len());
        other[place] ^= 1 << bit;
        if let Ok(other) = String::from_utf8(other) {
            prop_assert!(ask(SECRET, &headers, &other, 1000).is_err());
        }
        for header in 0..3 {
            let mut changed = headers.clone();
            let mut text = changed[header].1.clone().into_bytes();
            let place = at.index(text.len());
            text[place] ^= 1 << bit;
            changed[header].1 = String::from_utf8(text).unwrap();
            prop_assert!(ask(SECRET, &changed, &body, 1000).is_err());
        }
    }
}
