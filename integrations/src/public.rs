//! Hooks that anybody may use: nothing is verified, because the function's owner has said so.
//!
//! Name, id and body are what they are for any other sender: see [`plain`].

use runlet_core::secret::Secret;
use runlet_triggers::webhook::{Adapter, Event, Headers, Label, Refusal, Request};

use crate::plain;

/// The adapter `none`.
#[derive(Debug)]
pub(crate) struct Public;

impl Adapter for Public {
    fn usable(&self, _: &Secret) -> Result<(), String> {
        Ok(())
    }

    fn verify(&self, _: &Request<'_>, _: &Secret) -> Result<(), Refusal> {
        Ok(())
    }

    fn label(&self, headers: &Headers) -> Result<Label, Refusal> {
        plain::label(headers)
    }

    fn read(&self, request: &Request<'_>) -> Result<Event, Refusal> {
        plain::read(request)
    }
}
