//! Objects in the shape that the client accepts.

use jiff::Timestamp;
use sampan_api::table::{IncludeObject, table};
use sampan_api::{Status, meta};
use serde_json::{Value, json};

use crate::context::RequestContext;
use crate::negotiate::{Accepted, Form};
use crate::registry::Scope;
use crate::respond::{self, Response};

/// Answers one object (in the client's version).
pub(crate) fn present(
    scope: &Scope<'_>,
    accepted: &Accepted,
    code: u16,
    object: Value,
) -> Result<Response, Status> {
    let context = scope.context;
    let body = match accepted.form {
        Form::Object => object,
        Form::PartialMetadata => meta::partial_object_metadata(&object),
        Form::Table => one_row(scope, object)?,
    };
    respond::value(context, accepted, code, &body)
}

/// A Table of one object.
pub(super) fn one_row(scope: &Scope<'_>, object: Value) -> Result<Value, Status> {
    let version = meta::resource_version(&object).to_owned();
    let mut rows =
        table(scope.resource, std::slice::from_ref(&object), Timestamp::now(), include(scope.context)?);
    rows["metadata"] = json!({"resourceVersion": version});
    Ok(rows)
}

/// What rows carry of their objects.
pub(super) fn include(context: &RequestContext) -> Result<IncludeObject, Status> {
    match context.query.get("includeObject").unwrap_or_default() {
        "" | "Metadata" => Ok(IncludeObject::Metadata),
        "None" => Ok(IncludeObject::None),
        "Object" => Ok(IncludeObject::Object),
        other => Err(Status::bad_request(format!(
            "Unsupported value: {other:?}: supported values: \"Metadata\", \"None\", \"Object\""
        ))),
    }
}
