//! The four ways to patch an object but server-side apply: JSON patch, merge patch, strategic merge patch.

mod json;
mod strategic;
#[cfg(test)]
mod tests;

use serde_json::Value;

pub use json::json_patch;
pub use strategic::strategic_merge_patch;

/// Why a patch cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is malformed: 400 BadRequest.
    #[error("{0}")]
    Malformed(String),
    /// A well-formed patch that this object refuses (a failed `test`, a missing path): 422 Invalid.
    #[error("{0}")]
    Unprocessable(String),
}

/// RFC 7386: maps are merged, `null` deletes, everything else replaces.
pub fn merge_patch(doc: &Value, patch: &Value) -> Result<Value, PatchError> {
    if !patch.is_object() {
        return Err(PatchError::Malformed(
            "error decoding patch: a merge patch must be a JSON object".into(),
        ));
    }
    let mut out = doc.clone();
    merge(&mut out, patch);
    Ok(out)
}

fn merge(doc: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *doc = patch.clone();
        return;
    };
    let target = crate::meta::object_mut(doc);
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}
