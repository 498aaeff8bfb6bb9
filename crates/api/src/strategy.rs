//! What the server itself writes into an object on create and update: status reset, generation, phase.
//!
//! Upstream's REST strategies (`pkg/registry/*/strategy.go`).

use serde_json::Value;

use crate::scheme::Resource;

/// Before an object is stored for the first time.
pub fn prepare_for_create(_resource: &Resource, _object: &mut Value) {}

/// Before `new` replaces `old`, through the object itself (None) or a subresource ("status", …).
pub fn prepare_for_update(_resource: &Resource, _new: &mut Value, _old: &Value, _subresource: Option<&str>) {}
