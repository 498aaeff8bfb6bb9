//! The parts of objects that have paths of their own. One file each; those that are only a view of the object
//! (`status`, `ephemeralcontainers`, `resize`, `finalize`, `approval`) share the general verbs.

pub mod binding;
mod eviction;
mod scale;

use std::sync::Arc;

use http::Request;
use sampan_api::{Resource, Status};

use crate::ApiServer;
use crate::context::RequestContext;
use crate::handlers::{options, present, update_part};
use crate::negotiate::Accepted;
use crate::registry::Scope;
use crate::respond::{Body, Response};

/// Answers a request for a part of an object.
///
/// # Errors
/// The Status to answer.
pub(crate) async fn serve(
    server: &Arc<ApiServer>,
    context: &RequestContext,
    resource: &'static Resource,
    request: Request<Body>,
) -> Result<Response, Status> {
    let info = context.info.clone();
    let part = resource.subresource(&info.subresource).ok_or_else(Status::path_not_found)?;
    if !part.verbs.contains(&info.verb.as_str()) {
        return Err(Status::method_not_allowed());
    }
    let namespace = if resource.namespaced { info.namespace.as_str() } else { "" };
    let dry_run = options::dry_run(context)?;
    let scope = Scope { server, context, resource, namespace, subresource: &info.subresource, dry_run };
    match (resource.group, resource.plural, part.name, info.verb.as_str()) {
        ("", "pods", "binding", "create") => binding::create(&scope, request).await,
        ("", "pods", "eviction", "create") => eviction::create(&scope, request).await,
        (_, _, "scale", "get") => scale::get(&scope).await,
        (_, _, "scale", "update" | "patch") => scale::write(&scope, request).await,
        (_, _, _, "get") => {
            let accepted = Accepted::negotiate(&context.headers, &context.query, true)?;
            let found = server.registry.get_object(resource, namespace, &info.name).await?;
            let found = found.ok_or_else(|| scope.not_found(&info.name))?;
            present(&scope, &accepted, 200, scope.from_storage(found.value()))
        }
        (_, _, _, "update" | "patch") => update_part(&scope, request).await,
        _ => Err(Status::method_not_allowed()),
    }
}
