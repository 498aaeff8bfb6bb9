//! `create`: a new object.

use http::Request;
use sampan_api::{Status, meta};

use super::{body, decode, present};
use crate::negotiate::Accepted;
use crate::registry::{Scope, create as registry};
use crate::respond::{Body, Response};
use crate::subresources::binding;

/// Creates the object in the body.
pub(super) async fn create(scope: &Scope<'_>, request: Request<Body>) -> Result<Response, Status> {
    let context = scope.context;
    let accepted = Accepted::negotiate(&context.headers, &context.query, true)?;
    if scope.resource.namespaced && scope.namespace.is_empty() {
        return Err(Status::bad_request("an empty namespace may not be set during creation"));
    }
    if !context.info.name.is_empty() {
        return Err(Status::method_not_allowed());
    }
    let bytes = body::read(request).await?;
    let mut object = decode::object(scope, scope.resource, &bytes)?;
    decode::place(scope, &mut object)?;
    if scope.resource.group.is_empty() && scope.resource.kind == "Binding" {
        let name = meta::name(&object).to_owned();
        return binding::bind(scope, &name, &object).await;
    }
    sampan_api::defaulting::apply_defaults(scope.resource, &mut object);
    if !scope.resource.is_stored() {
        return Err(Status::method_not_supported(scope.resource.group, scope.resource.plural, "create"));
    }
    let created = registry::create(scope, object).await?;
    present(scope, &accepted, 201, created)
}
