//! How the texts with a rule (ids, names, spans) are described to readers of the API's document.

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};

/// A text that keeps a rule.
pub(crate) fn text(rule: &str, pattern: &str) -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).description(Some(rule)).pattern(Some(pattern)).into()
}
