//! The API's document as a test: no answer, of whatever test, has a status that the document does not name.

use std::sync::LazyLock;

use serde_json::Value;

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(&kept()).expect("it is JSON"));

/// The document in the tree.
pub(crate) fn kept() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    std::fs::read_to_string(path).expect("it is in the tree")
}

/// Whether a path of a request is one of this path of the document.
fn matches(pattern: &str, path: &str) -> bool {
    if pattern == "/hooks/{path}" {
        return path.strip_prefix("/hooks/").is_some_and(|rest| !rest.is_empty());
    }
    let (mut want, mut have) = (pattern.split('/'), path.split('/'));
    loop {
        match (want.next(), have.next()) {
            (None, None) => return true,
            (Some(want), Some(have)) if want == have || (want.starts_with('{') && !have.is_empty()) => {}
            _ => return false,
        }
    }
}

/// Panics where the document knows the request and not the status of its answer.
#[track_caller]
pub(crate) fn expect_documented(method: &str, path: &str, status: u16, text: &str) {
    let path = path.split('?').next().unwrap_or_default();
    let paths = DOCUMENT["paths"].as_object().expect("an object");
    // A path without parameters is meant before one that has them.
    let item =
        paths.get(path).or_else(|| paths.iter().find(|(pattern, _)| matches(pattern, path)).map(|(_, item)| item));
    let Some(operation) = item.and_then(|item| item.get(method.to_ascii_lowercase())) else { return };
    assert!(
        operation["responses"][status.to_string()].is_object(),
        "{method} {path} answered {status}, which docs/openapi.json does not name: {text}"
    );
}
