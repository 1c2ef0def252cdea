//! One run of a client verb: which server, as whom, and how the answer is to be shown.

use std::ffi::OsString;
use std::path::PathBuf;

use bytes::Bytes;
use hyper::body::Incoming;
use runlet_core::name::Namespace;
use runlet_core::token::TokenSecret;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::args::Global;
use super::errors::{self, CliError};
use crate::client::duplex::Exchanged;
use crate::client::host::Host;
use crate::client::{Answer, Call, Client};

const DATA_DIR: &str = "/var/lib/runlet";

/// A server to ask, and the wish for JSON.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    /// Whether the API's JSON is wanted on stdout.
    pub(crate) json: bool,
}

impl Session {
    /// Finds out which server is meant, from options and the environment. Nothing is connected yet.
    pub(crate) fn open(global: &Global) -> Result<Self, CliError> {
        Self::resolve(global, |name| std::env::var_os(name))
    }

    fn resolve(global: &Global, env: impl Fn(&str) -> Option<OsString>) -> Result<Self, CliError> {
        // An empty variable is an unset one: `RUNLET_TOKEN= runlet ...` is how a shell takes it away.
        let env = |name: &'static str| env(name).filter(|value| !value.is_empty());
        let text = |name: &'static str| match env(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text)),
            Some(Err(_)) => Err(CliError::NotText { variable: name }),
        };
        let host = match global.host.clone().map_or_else(|| text("RUNLET_HOST"), |host| Ok(Some(host)))? {
            Some(host) => host.parse::<Host>()?,
            None => {
                let dir = global.data_dir.clone().or_else(|| env("RUNLET_DATA_DIR").map(PathBuf::from));
                Host::in_data_dir(&dir.unwrap_or_else(|| PathBuf::from(DATA_DIR)))?
            }
        };
        let token = match (&global.token, &global.token_file) {
            (Some(token), _) => Some(token.clone()),
            (None, Some(path)) => Some(token_in(path.clone())?),
            (None, None) => match text("RUNLET_TOKEN")? {
                Some(token) => Some(TokenSecret::from_text(token.trim())),
                None => env("RUNLET_TOKEN_FILE").map(|path| token_in(path.into())).transpose()?,
            },
        };
        let namespace = match &global.namespace {
            Some(namespace) => Some(namespace.clone()),
            None => text("RUNLET_NAMESPACE")?.map(Namespace::new).transpose().map_err(CliError::Namespace)?,
        };
        Ok(Self { client: Client::new(host, token, namespace), json: global.json })
    }

    /// The server.
    pub(crate) const fn host(&self) -> &Host {
        self.client.host()
    }

    /// Asks, and takes any answer but a success for an error.
    pub(crate) async fn ask(&self, call: Call) -> Result<Answer, CliError> {
        errors::check(self.client.send(call).await?)
    }

    /// Sends what comes out of `body` while `take` has the answer.
    pub(crate) async fn stream<T>(
        &self,
        call: Call,
        body: mpsc::Receiver<Bytes>,
        take: impl AsyncFnOnce(Incoming) -> T,
    ) -> Result<Exchanged<T>, CliError> {
        Ok(self.client.stream(call, body, take).await?)
    }

    /// Asks for a JSON document and takes what is under `key` in it.
    pub(crate) async fn ask_for<T: DeserializeOwned>(&self, call: Call, key: &'static str) -> Result<T, CliError> {
        field(&self.ask(call).await?, key)
    }
}

/// The token that a file holds.
fn token_in(path: PathBuf) -> Result<TokenSecret, CliError> {
    let read = |source| CliError::Read { what: format!("the token file {}", path.display()), source };
    Ok(TokenSecret::from_text(std::fs::read_to_string(&path).map_err(read)?.trim()))
}

/// What is under `key` in the JSON document of an answer.
pub(crate) fn field<T: DeserializeOwned>(answer: &Answer, key: &'static str) -> Result<T, CliError> {
    let strange = |why: String| CliError::StrangeAnswer { status: answer.status.as_u16(), why };
    let mut document: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&answer.body).map_err(|error| strange(format!("it is no JSON object ({error})")))?;
    let value = document.remove(key).ok_or_else(|| strange(format!("it has no `{key}`")))?;
    serde_json::from_value(value).map_err(|error| strange(format!("its `{key}` has another shape ({error})")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::host::BadHost;

    fn resolve(host: Option<&str>, env: &[(&str, &str)]) -> Result<Session, CliError> {
        let global = Global {
            host: host.map(str::to_owned),
            token: None,
            namespace: None,
            data_dir: None,
            json: false,
            token_file: None,
        };
        Session::resolve(&global, |name| env.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    }

    fn host_of(host: Option<&str>, env: &[(&str, &str)]) -> String {
        resolve(host, env).expect("a good address").host().to_string()
    }

    #[test]
    fn the_server_is_found_by_option_then_variable_then_data_directory() {
        assert_eq!(host_of(None, &[]), "/var/lib/runlet/runlet.sock");
        assert_eq!(host_of(None, &[("RUNLET_DATA_DIR", "/d")]), "/d/runlet.sock");
        let both = [("RUNLET_DATA_DIR", "/d"), ("RUNLET_HOST", "http://a:1")];
        assert_eq!(host_of(None, &both), "http://a:1");
        assert_eq!(host_of(Some("/x.sock"), &both), "/x.sock");
        assert_eq!(host_of(None, &[("RUNLET_HOST", "")]), "/var/lib/runlet/runlet.sock");
    }

    #[test]
    fn bad_settings_are_named() {
        assert!(matches!(resolve(None, &[("RUNLET_HOST", "https://a/b")]), Err(CliError::Host(BadHost::Path(_)))));
        assert!(matches!(resolve(None, &[("RUNLET_NAMESPACE", "A B")]), Err(CliError::Namespace(_))));
    }

    #[test]
    fn the_token_is_not_in_debug_output() {
        let session = resolve(None, &[("RUNLET_TOKEN", "rl_hunter2")]).expect("good");
        assert!(!format!("{session:?}").contains("hunter2"));
    }
}
