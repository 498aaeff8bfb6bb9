//! The verbs on resources, one file each.

pub mod body;
mod create;
pub mod decode;
mod delete;
mod get;
mod list;
pub mod options;
mod patch;
mod present;
mod update;
mod watch;

use std::sync::Arc;

use http::Request;
use sampan_api::{Resource, Status};

use crate::ApiServer;
use crate::context::RequestContext;
use crate::registry::Scope;
use crate::respond::{Body, Response};

pub(crate) use patch::Patch;
pub(crate) use present::present;

/// Writes the part of an object that a subresource is.
///
/// # Errors
/// The Status to answer.
pub(crate) async fn update_part(scope: &Scope<'_>, request: Request<Body>) -> Result<Response, Status> {
    if scope.context.info.verb == "patch" {
        patch::patch(scope, request).await
    } else {
        update::update(scope, request).await
    }
}

/// Answers a request for a resource itself.
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
    let verb = info.verb.as_str();
    if !resource.verbs.contains(&verb) {
        return Err(Status::method_not_allowed());
    }
    let namespace = if resource.namespaced { info.namespace.as_str() } else { "" };
    let scope =
        Scope { server, context, resource, namespace, subresource: "", dry_run: options::dry_run(context)? };
    match verb {
        "get" => get::get(&scope).await,
        "list" => list::list(&scope).await,
        "watch" => watch::watch(&scope, request).await,
        "create" => create::create(&scope, request).await,
        "update" => update::update(&scope, request).await,
        "patch" => patch::patch(&scope, request).await,
        "delete" => delete::delete(&scope, request).await,
        "deletecollection" => delete::delete_collection(&scope, request).await,
        _ => Err(Status::method_not_allowed()),
    }
}
