//! `delete` and `deletecollection`.

use http::Request;
use sampan_api::{Status, meta};
use serde_json::json;

use super::{body, list, options, present};
use crate::negotiate::Accepted;
use crate::registry::{Scope, delete as registry, rules};
use crate::respond::{self, Body, Response};

/// Deletes an object, or begins to.
pub(super) async fn delete(scope: &Scope<'_>, request: Request<Body>) -> Result<Response, Status> {
    let context = scope.context;
    let accepted = Accepted::negotiate(&context.headers, &context.query, true)?;
    let bytes = body::read(request).await?;
    let (options, dry) = options::delete(context, &bytes)?;
    let scope = Scope { dry_run: scope.dry_run || dry, ..*scope };
    let name = &context.info.name;
    let deleted = registry::delete(&scope, name, &options).await?;
    if deleted.gone && !rules::answers_deleted_object(scope.resource) {
        let (group, plural) = (scope.resource.group, scope.resource.plural);
        let status = Status::deleted(group, plural, name, meta::uid(&deleted.object));
        return respond::value(context, &accepted, 200, &status.to_value());
    }
    let code = if !deleted.gone && options.orphan_dependents == Some(false) { 202 } else { 200 };
    present(&scope, &accepted, code, deleted.object)
}

/// Deletes every object that is selected; answers them as a list.
pub(super) async fn delete_collection(scope: &Scope<'_>, request: Request<Body>) -> Result<Response, Status> {
    let context = scope.context;
    let accepted = Accepted::negotiate(&context.headers, &context.query, true)?;
    let listing = options::list(context, scope.resource, scope.namespace)?;
    let bytes = body::read(request).await?;
    let (options, dry) = options::delete(context, &bytes)?;
    let page = scope.server.registry.list(scope.resource, &listing).await?;
    let mut objects = Vec::with_capacity(page.objects.len());
    for object in &page.objects {
        let scope = Scope { namespace: object.namespace(), dry_run: scope.dry_run || dry, ..*scope };
        match registry::delete(&scope, object.name(), &options).await {
            Ok(deleted) => objects.push(deleted.object),
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
    }
    let metadata = json!({"resourceVersion": page.revision.to_string()});
    respond::value(context, &accepted, 200, &list::whole(scope, objects, metadata))
}
