//! Label and field selectors: parsing as kubectl and the API write them, and matching against objects.

mod field;
mod label;
mod parse;
#[cfg(test)]
mod tests;

pub use field::{FieldRequirement, FieldSelector, field_value, supported_fields};
pub use label::{LabelSelector, Operator, Requirement};

/// Why a selector cannot be used. The texts are upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A label selector that cannot be parsed.
    #[error("{0}")]
    Label(String),
    /// A field selector that cannot be parsed.
    #[error("{0}")]
    Field(String),
    /// A field by which this resource cannot be selected.
    #[error("field label not supported: {0}")]
    UnsupportedField(String),
    /// A field by which this resource, which has only the general ones, cannot be selected.
    #[error("{0:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")]
    UnknownField(String),
}
