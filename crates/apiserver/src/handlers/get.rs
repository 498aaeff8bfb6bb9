//! `get`: one object.

use sampan_api::Status;

use super::present;
use crate::negotiate::{Accepted, Form};
use crate::registry::Scope;
use crate::respond::{self, Response};

/// Answers one object.
pub(super) async fn get(scope: &Scope<'_>) -> Result<Response, Status> {
    let context = scope.context;
    let accepted = Accepted::negotiate(&context.headers, &context.query, true)?;
    let name = &context.info.name;
    let found = scope.server.registry.get_object(scope.resource, scope.namespace, name).await?;
    let found = found.ok_or_else(|| scope.not_found(name))?;
    if accepted.form == Form::Object && !accepted.yaml && !accepted.pretty && !scope.converts() {
        return Ok(respond::complete(context, 200, "application/json", found.bytes.clone()));
    }
    present(scope, &accepted, 200, scope.from_storage(found.value()))
}
