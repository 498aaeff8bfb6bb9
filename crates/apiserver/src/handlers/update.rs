//! `update`: an object put in the place of the one that is there.

use http::Request;
use sampan_api::{Status, defaulting, meta};
use serde_json::Value;

use super::{body, decode, present};
use crate::negotiate::Accepted;
use crate::registry::{Scope, update as registry};
use crate::respond::{Body, Response};

/// Replaces an object (or the part of it that a subresource is).
pub(crate) async fn update(scope: &Scope<'_>, request: Request<Body>) -> Result<Response, Status> {
    let context = scope.context;
    let accepted = Accepted::negotiate(&context.headers, &context.query, true)?;
    let name = context.info.name.clone();
    let bytes = body::read(request).await?;
    let mut object = decode::object(scope, scope.resource, &bytes)?;
    let own = meta::name(&object);
    if !own.is_empty() && own != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({own}) does not match the name on the URL ({name})"
        )));
    }
    if own.is_empty() {
        return Err(Status::bad_request(format!(
            "name must be provided: the name of the object does not match the name on the URL ({name})"
        )));
    }
    decode::place(scope, &mut object)?;
    defaulting::apply_defaults(scope.resource, &mut object);
    let change = |_: Option<&Value>| Ok(object.clone());
    let updated = registry::update(scope, &name, true, &change).await?;
    present(scope, &accepted, if updated.created { 201 } else { 200 }, updated.object)
}
