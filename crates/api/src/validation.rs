//! Validation: what a kind's fields may hold, in upstream's words.

use serde_json::Value;

use crate::{FieldError, scheme::Resource};

/// Checks an object that is to be created (after defaulting). Empty = valid.
pub fn validate_create(_resource: &Resource, _object: &Value) -> Vec<FieldError> {
    Vec::new()
}

/// Checks an object that is to replace `old`.
pub fn validate_update(_resource: &Resource, _new: &Value, _old: &Value) -> Vec<FieldError> {
    Vec::new()
}

/// Checks an object whose status is to replace that of `old`.
pub fn validate_status_update(_resource: &Resource, _new: &Value, _old: &Value) -> Vec<FieldError> {
    Vec::new()
}

/// Checks a write through another subresource (`ephemeralcontainers`, `resize`, `binding`, `finalize`, …).
pub fn validate_subresource(_resource: &Resource, _subresource: &str, _new: &Value, _old: &Value) -> Vec<FieldError> {
    Vec::new()
}

/// The texts of `Warning` headers for an object that is created or updated.
pub fn warnings(_resource: &Resource, _object: &Value) -> Vec<String> {
    Vec::new()
}
