//! Shapes of bodies that are no struct of ours, for the API's document.

use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// Bytes as they are.
pub(super) enum Octets {}

impl PartialSchema for Octets {
    fn schema() -> RefOr<Schema> {
        let bytes = ObjectBuilder::new().schema_type(Type::String);
        bytes.format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary))).description(Some("Bytes as they are")).into()
    }
}

impl ToSchema for Octets {}

/// Whatever a function takes or gives.
pub(super) enum Anything {}

impl PartialSchema for Anything {
    fn schema() -> RefOr<Schema> {
        let any = ObjectBuilder::new().schema_type(SchemaType::AnyValue);
        any.description(Some("Whatever a function takes or gives")).into()
    }
}

impl ToSchema for Anything {}
