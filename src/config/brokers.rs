//! Message brokers: the `[brokers.NAME]` tables. Functions name a broker; where it is and who we are there is the operator's.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use runlet_core::name::{BrokerName, Namespace, SecretName};
use runlet_triggers::queue::{BrokerConfig, BrokerKind, Brokers};

use super::error::{ConfigError, Source};
use super::file::{Reader, Value};
use super::secrets::ConfiguredSecrets;

/// A `[brokers.NAME]` table.
#[derive(Debug, Clone)]
pub(crate) struct BrokerEntry {
    /// Its address.
    pub url: String,
    /// Who we are there.
    pub user: Option<String>,
    /// The secret that holds password, token or credentials.
    pub secret: Option<SecretName>,
    /// The authorities of its certificate.
    pub ca: Option<PathBuf>,
    /// Whose triggers may take from it.
    pub namespaces: Vec<Namespace>,
    /// Where the table stands.
    pub source: Source,
}

const SHAPE: &str = "write a table per broker: [brokers.NAME] with url = \"nats://host:4222\" or \"amqp://host:5672\"";

impl Reader<'_> {
    /// The `[brokers.NAME]` tables.
    pub(super) fn brokers(&self, value: &Value<'_>) -> Result<Vec<(BrokerName, BrokerEntry)>, ConfigError> {
        let fail = |at: usize, key: &str| ConfigError::new(self.source(at), key, SHAPE);
        let table = value.get_ref().as_table().ok_or_else(|| fail(value.span().start, "brokers"))?;
        table.iter().map(|(name, entry)| self.broker(name.get_ref(), name.span().start, entry)).collect()
    }

    fn broker(&self, name: &str, at: usize, value: &Value<'_>) -> Result<(BrokerName, BrokerEntry), ConfigError> {
        let key = format!("brokers.{name}");
        let source = self.source(at);
        let fail = |at: usize, key: &str, message: String| ConfigError::new(self.source(at), key, message);
        let checked = BrokerName::new(name).map_err(|error| fail(at, &key, error.to_string()))?;
        let table = value.get_ref().as_table().ok_or_else(|| fail(at, &key, SHAPE.to_owned()))?;
        let mut entry = BrokerEntry {
            url: String::new(),
            user: None,
            secret: None,
            ca: None,
            namespaces: vec![Namespace::default_namespace()],
            source,
        };
        for (field, value) in table {
            let (at, full) = (field.span().start, format!("{key}.{}", field.get_ref()));
            let text = value.get_ref().as_str().filter(|text| !text.is_empty());
            match (field.get_ref().as_ref(), text, value.get_ref().as_array()) {
                ("url", Some(text), _) => entry.url = url(text).map_err(|message| fail(at, &full, message))?,
                ("user", Some(text), _) => entry.user = Some(text.to_owned()),
                ("secret", Some(text), _) => {
                    entry.secret = Some(SecretName::new(text).map_err(|error| fail(at, &full, error.to_string()))?);
                }
                ("ca", Some(text), _) if text.starts_with('/') => entry.ca = Some(text.into()),
                ("ca", ..) => return Err(fail(at, &full, "write the absolute path of a PEM file".to_owned())),
                ("namespaces", _, Some(list)) => entry.namespaces = self.namespaces(&self.source(at), &full, list)?,
                ("namespaces", ..) => {
                    return Err(fail(at, &full, "write a list of names, for example [\"default\"]".to_owned()));
                }
                ("password" | "token", ..) => {
                    let message = "a password is never written here; write secret = \"NAME\" of a [secrets.NAME] table";
                    return Err(fail(at, &full, message.to_owned()));
                }
                ("url" | "user" | "secret", ..) => return Err(fail(at, &full, "write a text in quotes".to_owned())),
                _ => {
                    let message = "this is no key of a broker; use url, user, secret, ca and namespaces";
                    return Err(fail(at, &full, message.to_owned()));
                }
            }
        }
        if entry.url.is_empty() {
            return Err(fail(at, &key, SHAPE.to_owned()));
        }
        Ok((checked, entry))
    }
}

/// An address of a known kind, without credentials.
fn url(text: &str) -> Result<String, String> {
    let Some(kind) = BrokerKind::of_url(text) else {
        return Err("write nats://, tls:// (NATS), amqp:// or amqps:// (RabbitMQ), host and port".to_owned());
    };
    if text.contains('@') {
        return Err("credentials are never written here; write user = \"...\" and secret = \"NAME\"".to_owned());
    }
    if !kind.is_built() {
        return Err("this binary was built without this kind of broker".to_owned());
    }
    Ok(text.to_owned())
}

/// The brokers with their secrets.
///
/// # Errors
/// The first whose secret is not configured.
pub(crate) fn with_secrets(
    entries: &BTreeMap<BrokerName, BrokerEntry>,
    secrets: &ConfiguredSecrets,
) -> Result<Brokers, ConfigError> {
    let mut brokers = HashMap::new();
    for (name, entry) in entries {
        let secret = match &entry.secret {
            None => None,
            Some(secret) => Some(secrets.of_operator(secret).ok_or_else(|| {
                let message = format!("there is no [secrets.{secret}]; add it with file = \"...\" or env = \"...\"");
                ConfigError::new(entry.source.clone(), format!("brokers.{name}.secret"), message)
            })?),
        };
        let BrokerEntry { url, user, ca, namespaces, .. } = entry.clone();
        brokers.insert(name.clone(), BrokerConfig { url, user, secret, ca, namespaces });
    }
    Ok(Brokers::new(brokers))
}
