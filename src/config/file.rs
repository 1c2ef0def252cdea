//! The configuration file: TOML, read into (key, text, line) entries and secret tables.
//!
//! What a value may be is decided by [`super::keys`]; here only its TOML type and its place matter.

use std::path::Path;

use runlet_core::name::{Namespace, SecretName};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Source};
use super::keep::{Days, NamespaceEntry};
use super::keys::{self, KEYS, Kind};
use super::secrets::{SecretEntry, SecretPlace};

/// A key that the file sets.
pub(super) struct Entry {
    /// The row of the table.
    pub key: &'static keys::Key,
    /// Its value as text.
    pub text: String,
    /// Where it stands.
    pub source: Source,
}

/// What a file says.
pub(super) struct File {
    /// Plain keys.
    pub entries: Vec<Entry>,
    /// The `[secrets.NAME]` tables.
    pub secrets: Vec<(SecretName, SecretEntry)>,
    /// The `[namespaces.NAME]` tables.
    pub namespaces: Vec<(Namespace, NamespaceEntry)>,
}

/// Reads the text of the file at `path`.
pub(super) fn parse(path: &Path, text: &str) -> Result<File, ConfigError> {
    let reader = Reader { path, text };
    let table = DeTable::parse(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        ConfigError::new(reader.source(start), "", error.message().to_owned())
    })?;
    let mut file = File { entries: Vec::new(), secrets: Vec::new(), namespaces: Vec::new() };
    for (name, value) in table.get_ref() {
        if name.get_ref() == "secrets" {
            file.secrets = reader.secrets(value)?;
        } else if let (true, Some(table)) = (keys::is_table(name.get_ref()), value.get_ref().as_table()) {
            reader.table(name.get_ref(), table, &mut file.entries)?;
        } else if name.get_ref() == "namespaces" {
            file.namespaces = reader.namespace_tables(value)?;
        } else {
            file.entries.push(reader.entry(name.get_ref(), name.span().start, value.get_ref())?);
        }
    }
    Ok(file)
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

type Value<'a> = Spanned<DeValue<'a>>;

impl Reader<'_> {
    /// The place of byte `offset`.
    fn source(&self, offset: usize) -> Source {
        let line = self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
        Source::File(self.path.to_owned(), line)
    }

    /// The keys of a table, and of those below it.
    fn table(&self, name: &str, table: &DeTable<'_>, entries: &mut Vec<Entry>) -> Result<(), ConfigError> {
        for (key, value) in table {
            let full = format!("{name}.{}", key.get_ref());
            match value.get_ref().as_table() {
                Some(below) if keys::is_table(&full) => self.table(&full, below, entries)?,
                _ => entries.push(self.entry(&full, key.span().start, value.get_ref())?),
            }
        }
        Ok(())
    }

    fn entry(&self, name: &str, at: usize, value: &DeValue<'_>) -> Result<Entry, ConfigError> {
        let source = self.source(at);
        let Some(key) = keys::find(name) else {
            let message = if keys::is_table(name) {
                format!("this is a table: write [{name}] and its keys below it")
            } else {
                unknown(name)
            };
            return Err(ConfigError::new(source, name, message));
        };
        let text = match (key.kind, value) {
            (Kind::Text, DeValue::String(text)) => text.to_string(),
            (Kind::Number, DeValue::Integer(number)) if number.radix() == 10 => number.as_str().replace('_', ""),
            (Kind::Decimal, DeValue::Float(number)) => number.as_str().replace('_', ""),
            (Kind::Decimal, DeValue::Integer(number)) if number.radix() == 10 => number.as_str().replace('_', ""),
            (Kind::Switch, DeValue::Boolean(on)) => on.to_string(),
            _ => return Err(ConfigError::new(source, name, key.kind.remedy())),
        };
        Ok(Entry { key, text, source })
    }

    fn secrets(&self, value: &Value<'_>) -> Result<Vec<(SecretName, SecretEntry)>, ConfigError> {
        let Some(table) = value.get_ref().as_table() else {
            let message = "write a table per secret: [secrets.NAME] with file = \"...\" or env = \"...\"";
            return Err(ConfigError::new(self.source(value.span().start), "secrets", message));
        };
        table.iter().map(|(name, entry)| self.secret(name.get_ref(), name.span().start, entry)).collect()
    }

    fn secret(&self, name: &str, at: usize, value: &Value<'_>) -> Result<(SecretName, SecretEntry), ConfigError> {
        let key = format!("secrets.{name}");
        let place = self.source(at);
        let fail = |source: &Source, key: &str, message: &str| Err(ConfigError::new(source.clone(), key, message));
        let checked =
            SecretName::new(name).map_err(|error| ConfigError::new(place.clone(), &key, error.to_string()))?;
        let Some(table) = value.get_ref().as_table() else {
            return fail(
                &place,
                &key,
                "write a table: file = \"...\" or env = \"...\", and namespaces = [\"default\"]",
            );
        };
        let (mut file, mut env) = (None, None);
        let mut namespaces = vec![Namespace::default_namespace()];
        for (field, value) in table {
            let source = self.source(field.span().start);
            let full = format!("{key}.{}", field.get_ref());
            match (field.get_ref().as_ref(), value.get_ref()) {
                ("file", DeValue::String(path)) if Path::new(path.as_ref()).is_absolute() => {
                    file = Some(path.to_string())
                }
                ("file", _) => return fail(&source, &full, "write the absolute path of a file that holds the value"),
                ("env", DeValue::String(name)) if !name.is_empty() => env = Some(name.to_string()),
                ("env", _) => return fail(&source, &full, "write the name of an environment variable of the server"),
                ("namespaces", DeValue::Array(list)) => namespaces = self.namespaces(&source, &full, list)?,
                ("namespaces", _) => return fail(&source, &full, "write a list of names, for example [\"default\"]"),
                ("value", _) => {
                    return fail(
                        &source,
                        &full,
                        "a secret's value is never written here; write file = \"...\" or env = \"...\"",
                    );
                }
                _ => return fail(&source, &full, "this is no key of a secret; use file or env, and namespaces"),
            }
        }
        let origin = match (file, env) {
            (Some(path), None) => SecretPlace::File(path.into()),
            (None, Some(name)) => SecretPlace::Env(name),
            (None, None) => return fail(&place, &key, "say where its value is: file = \"...\" or env = \"...\""),
            (Some(_), Some(_)) => return fail(&place, &key, "file and env are both given; keep one of them"),
        };
        Ok((checked, SecretEntry { place: origin, namespaces, source: place }))
    }

    fn namespace_tables(&self, value: &Value<'_>) -> Result<Vec<(Namespace, NamespaceEntry)>, ConfigError> {
        const SHAPE: &str = "write a table per namespace: [namespaces.NAME] with retention = \"7d\" or weight = 2";
        let fail = |at: usize, key: &str, message: &str| ConfigError::new(self.source(at), key, message);
        let Some(table) = value.get_ref().as_table() else {
            return Err(fail(value.span().start, "namespaces", SHAPE));
        };
        let mut found = Vec::new();
        for (name, entry) in table {
            let (at, key) = (name.span().start, format!("namespaces.{}", name.get_ref()));
            let namespace =
                Namespace::new(name.get_ref().as_ref()).map_err(|error| fail(at, &key, &error.to_string()))?;
            let (mut keep, mut weight) = (None, None);
            for (field, value) in entry.get_ref().as_table().ok_or_else(|| fail(at, &key, SHAPE))? {
                let (at, key) = (field.span().start, format!("{key}.{}", field.get_ref()));
                match (field.get_ref().as_ref(), value.get_ref()) {
                    ("retention", DeValue::String(text)) => {
                        keep = Some(text.parse::<Days>().map_err(|message| fail(at, &key, &message))?);
                    }
                    ("retention", _) => return Err(fail(at, &key, Kind::Text.remedy())),
                    ("weight", DeValue::Integer(number)) => {
                        weight = Some(keys::weight(number.as_str()).map_err(|message| fail(at, &key, &message))?);
                    }
                    ("weight", _) => return Err(fail(at, &key, Kind::Number.remedy())),
                    _ => return Err(fail(at, &key, "this is no key of a namespace; use retention or weight")),
                }
            }
            found.push((namespace, NamespaceEntry { retention: keep, weight, source: self.source(at) }));
        }
        Ok(found)
    }

    fn namespaces(&self, source: &Source, key: &str, list: &[Value<'_>]) -> Result<Vec<Namespace>, ConfigError> {
        let fail = |message: String| ConfigError::new(source.clone(), key, message);
        if list.is_empty() {
            return Err(fail("nobody could use it; name at least one namespace".to_owned()));
        }
        list.iter()
            .map(|item| match item.get_ref().as_str() {
                Some(text) => Namespace::new(text).map_err(|error| fail(error.to_string())),
                None => Err(fail("write a list of names, for example [\"default\"]".to_owned())),
            })
            .collect()
    }
}

/// The message for a key that does not exist, with the nearest one that does.
fn unknown(name: &str) -> String {
    let near = KEYS.iter().map(|key| (distance(name, key.name), key.name)).min();
    match near {
        Some((far, near)) if far <= 3 => format!("there is no such key; did you mean `{near}`?"),
        _ => "there is no such key; `runlet config check` prints all of them".to_owned(),
    }
}

/// Edits from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = row.first().copied().unwrap_or_default();
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (y, cell) in b.bytes().zip(row.iter_mut().skip(1)) {
            left = (left + 1).min(*cell + 1).min(corner + usize::from(x != y));
            corner = std::mem::replace(cell, left);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn edits_are_counted() {
        assert_eq!(distance("listen", "listen"), 0);
        assert_eq!(distance("lisen", "listen"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("memroy", "memory"), 2);
    }
}
