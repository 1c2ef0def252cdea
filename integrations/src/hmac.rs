//! Any sender that can make an HMAC-SHA256: `X-Signature-256` over the raw body, `X-Event`, and an id if it has one.
//!
//! The body may be anything; only what says that it is JSON has to be JSON.

use runlet_core::secret::Secret;
use runlet_triggers::webhook::{Adapter, Event, Headers, Label, Refusal, Request};

use crate::plain;
use crate::signature::{self, Prefix};

const SIGNATURE: &str = "x-signature-256";

/// The generic adapter.
#[derive(Debug)]
pub(crate) struct Generic;

impl Adapter for Generic {
    fn usable(&self, secret: &Secret) -> Result<(), String> {
        signature::not_empty(secret)
    }

    fn verify(&self, request: &Request<'_>, secret: &Secret) -> Result<(), Refusal> {
        signature::check(request, SIGNATURE, Prefix::Optional, secret)
    }

    fn label(&self, headers: &Headers) -> Result<Label, Refusal> {
        plain::label(headers)
    }

    fn read(&self, request: &Request<'_>) -> Result<Event, Refusal> {
        plain::read(request)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use runlet_core::clock;

    use super::*;

    #[test]
    fn the_signature_is_over_the_raw_body() {
        let body = Bytes::from_static(b"{ \"a\":1 }");
        let headers: Headers = [("X-Signature-256", signature::sign("s", &body))].into_iter().collect();
        let verify =
            |body: &Bytes| Generic.verify(&Request { headers: &headers, body, at: clock::now() }, &Secret::new("s"));
        assert_eq!(verify(&body), Ok(()));
        assert!(verify(&Bytes::from_static(b"{\"a\":1}")).is_err());
    }
}
