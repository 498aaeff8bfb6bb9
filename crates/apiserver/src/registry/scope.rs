//! What a read or write is about, in whose name, and in which version the client speaks.

use std::sync::Arc;

use sampan_api::{Resource, Status, conversion, meta};
use serde_json::Value;

use crate::ApiServer;
use crate::context::RequestContext;

/// The surroundings of an operation on one resource.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// The server.
    pub server: &'a Arc<ApiServer>,
    /// The request.
    pub context: &'a RequestContext,
    /// The resource in the version that the client uses.
    pub resource: &'static Resource,
    /// The namespace; empty for cluster-scoped resources.
    pub namespace: &'a str,
    /// The subresource; empty is the object itself.
    pub subresource: &'a str,
    /// Whether everything but the write is done.
    pub dry_run: bool,
}

impl Scope<'_> {
    /// The resource under which objects are stored.
    pub fn storage(&self) -> &'static Resource {
        self.resource.storage()
    }

    /// Whether objects are stored in another version than the client's.
    pub fn converts(&self) -> bool {
        self.storage().kind != self.resource.kind
            || self.storage().api_version() != self.resource.api_version()
    }

    /// From the client's version to the stored one.
    pub fn to_storage(&self, mut object: Value) -> Value {
        conversion::to_storage(self.resource, &mut object);
        meta::set_type(&mut object, self.storage());
        object
    }

    /// From the stored version to the client's.
    pub fn from_storage(&self, mut object: Value) -> Value {
        conversion::from_storage(self.resource, &mut object);
        object
    }

    /// 404 for an object.
    pub fn not_found(&self, name: &str) -> Status {
        Status::not_found(self.resource.group, self.resource.plural, name)
    }

    /// 409 for a write that came too late.
    pub fn modified(&self, name: &str) -> Status {
        Status::object_modified(self.resource.group, self.resource.plural, name)
    }

    /// 409 with a reason.
    pub fn conflict(&self, name: &str, why: &str) -> Status {
        Status::conflict(self.resource.group, self.resource.plural, name, why)
    }
}
