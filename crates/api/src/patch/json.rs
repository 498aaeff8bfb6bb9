//! RFC 6902 with upstream's errors.
use serde_json::Value;

use super::PatchError;

/// Applies a list of operations, all or none.
pub fn json_patch(_doc: &Value, _patch: &Value) -> Result<Value, PatchError> {
    Err(PatchError::Malformed("not yet".into()))
}
