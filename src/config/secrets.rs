//! Secrets: read once at start, while the server is still root, then handed out by name to those who may use them.
//!
//! No value is ever shown: not in errors, not in logs, not in `Debug`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use runlet_core::name::{Namespace, SecretName};
use runlet_core::secret::{Secret, Secrets};

use super::error::{ConfigError, Source};

/// Largest secret that is read: a path that names something else by mistake is not swallowed whole.
const MAX_SECRET: u64 = 64 * 1024;

/// Where the value of a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretPlace {
    /// In this file.
    File(PathBuf),
    /// In this environment variable of the server.
    Env(String),
}

impl fmt::Display for SecretPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// A `[secrets.NAME]` table.
#[derive(Debug, Clone)]
pub(crate) struct SecretEntry {
    /// Where the value is.
    pub place: SecretPlace,
    /// Who may use it.
    pub namespaces: Vec<Namespace>,
    /// Where the table stands.
    pub source: Source,
}

/// The secrets of the configuration, with their values.
#[derive(Debug, Default)]
pub(crate) struct ConfiguredSecrets {
    values: HashMap<(Namespace, SecretName), Secret>,
    /// All of them, for what the operator himself configures.
    all: HashMap<SecretName, Secret>,
}

impl ConfiguredSecrets {
    /// The secret that another part of the configuration names.
    pub(crate) fn of_operator(&self, name: &SecretName) -> Option<Secret> {
        self.all.get(name).cloned()
    }
}

impl Secrets for ConfiguredSecrets {
    fn get(&self, namespace: &Namespace, name: &SecretName) -> Option<Secret> {
        self.values.get(&(namespace.clone(), name.clone())).cloned()
    }
}

/// Reads every secret. Returns them and what an operator should know about them.
///
/// # Errors
/// The first that cannot be read, by name and place.
pub(crate) fn read(
    entries: &BTreeMap<SecretName, SecretEntry>,
) -> Result<(ConfiguredSecrets, Vec<String>), ConfigError> {
    let mut secrets = ConfiguredSecrets::default();
    let mut warnings = Vec::new();
    for (name, entry) in entries {
        let fail = |message: String| ConfigError::new(entry.source.clone(), format!("secrets.{name}"), message);
        let value = match &entry.place {
            SecretPlace::Env(variable) => {
                let value = std::env::var_os(variable);
                value
                    .map(OsStringExt::into_vec)
                    .ok_or_else(|| fail(format!("environment variable {variable} is not set")))?
            }
            SecretPlace::File(path) => {
                let cannot = |error| fail(format!("cannot read {}: {error}", path.display()));
                let about = fs::metadata(path).map_err(cannot)?;
                if !about.is_file() || about.len() > MAX_SECRET {
                    return Err(fail(format!("{} is not a file of at most {MAX_SECRET} bytes", path.display())));
                }
                if about.mode() & 0o077 != 0 {
                    warnings.push(format!(
                        "secret {name}: {} can be read by others than its owner; chmod 600 it",
                        path.display()
                    ));
                }
                fs::read(path).map(without_newline).map_err(cannot)?
            }
        };
        if value.is_empty() {
            return Err(fail(format!("its value is empty; write it into {}", entry.place)));
        }
        let secret = Secret::new(value);
        secrets.all.insert(name.clone(), secret.clone());
        for namespace in &entry.namespaces {
            secrets.values.insert((namespace.clone(), name.clone()), secret.clone());
        }
    }
    Ok((secrets, warnings))
}

/// Editors and `echo` end a file with a newline that nobody means.
fn without_newline(mut value: Vec<u8>) -> Vec<u8> {
    if value.ends_with(b"\n") {
        value.pop();
        if value.ends_with(b"\r") {
            value.pop();
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &std::path::Path) -> BTreeMap<SecretName, SecretEntry> {
        let name = SecretName::new("s").expect("it is a name");
        let namespaces = vec![Namespace::default_namespace()];
        let place = SecretPlace::File(path.to_owned());
        BTreeMap::from([(name, SecretEntry { place, namespaces, source: Source::Default })])
    }

    #[test]
    fn a_file_is_read_without_its_last_newline_for_its_namespaces_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s");
        fs::write(&path, "hunter2\n").expect("written");
        let (secrets, warnings) = read(&entry(&path)).expect("it is there");
        let name = SecretName::new("s").expect("it is a name");
        let other = Namespace::new("other").expect("it is a name");
        assert_eq!(secrets.get(&Namespace::default_namespace(), &name), Some(Secret::new("hunter2")));
        assert_eq!(secrets.get(&other, &name), None);
        assert_eq!(warnings.len(), 1, "the file is readable by others");
        assert!(!format!("{secrets:?} {warnings:?}").contains("hunter2"));
    }

    #[test]
    fn a_missing_or_empty_file_is_an_error_that_names_the_secret() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s");
        assert!(read(&entry(&path)).is_err_and(|error| error.to_string().contains("secrets.s: cannot read")));
        fs::write(&path, "\n").expect("written");
        assert!(read(&entry(&path)).is_err_and(|error| error.to_string().contains("empty")));
    }
}
