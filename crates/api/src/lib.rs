//! Kubernetes kinds as sampan uses them: scheme, defaulting, validation, selectors, patches, tables. Pure, no I/O.
//!
//! Objects are `serde_json::Value`, so that fields which this version does not know survive a round trip; the
//! schema ([`schema`]) says what a kind's fields are, the other modules say what they mean.

pub mod conversion;
pub mod defaulting;
pub mod duration;
pub mod field;
pub mod field_error;
pub mod manifest;
pub mod meta;
pub mod names;
pub mod patch;
pub mod pem;
pub mod qos;
pub mod quantity;
pub mod quota;
pub mod resources;
pub mod schema;
pub mod scheme;
pub mod selector;
pub mod status;
pub mod strategy;
pub mod table;
pub mod taints;
pub mod validation;
pub mod version;

pub use field_error::{ErrorType, FieldError};
pub use quantity::Quantity;
pub use scheme::{Resource, Subresource};
pub use status::Status;
