//! Bodies become objects: syntax, kind, field types, unknown fields, and where the object belongs.

mod kind;

use sampan_api::schema::{self, DecodeError, Decoded};
use sampan_api::{Resource, Status, meta};
use serde_json::Value;

use self::kind::TypeMeta;
use super::options::{FieldValidation, field_validation};
use crate::context::RequestContext;
use crate::negotiate::Media;
use crate::registry::Scope;

/// Reads an object of a resource from a body, as strictly as the query asks for.
///
/// # Errors
/// 400 for syntax, types and (when strict) unknown fields, 415 for media types that are not understood.
pub(crate) fn object(scope: &Scope<'_>, resource: &Resource, body: &[u8]) -> Result<Value, Status> {
    let context = scope.context;
    let validation = field_validation(context)?;
    let media = Media::of(&context.headers)?;
    // The kind is looked at first: a Pod that is posted to ConfigMaps should not be told of unknown fields.
    if let Some(seen) = TypeMeta::read(media, body) {
        seen.expect(resource)?;
    }
    let decoded = match media {
        Media::Json => schema::decode_json(resource, body),
        Media::Yaml => schema::decode_yaml(resource, body),
    };
    let decoded = decoded.map_err(|error| match error {
        DecodeError::Syntax(why) => kind::unrecognized(resource, &why, body),
        wrong @ DecodeError::Type(_) => wrong.to_status(resource),
    })?;
    checked(scope, resource, decoded, validation)
}

/// Checks a value that a patch made.
///
/// # Errors
/// 400 for wrong types and (when strict) unknown fields.
pub(crate) fn patched(scope: &Scope<'_>, resource: &Resource, value: Value) -> Result<Value, Status> {
    let validation = field_validation(scope.context)?;
    let decoded = schema::decode_value(resource, value).map_err(|error| error.to_status(resource))?;
    checked(scope, resource, decoded, validation)
}

fn checked(
    scope: &Scope<'_>,
    resource: &Resource,
    decoded: Decoded,
    validation: FieldValidation,
) -> Result<Value, Status> {
    match validation {
        FieldValidation::Strict => {
            if let Some(status) = decoded.strict_error(resource) {
                return Err(status);
            }
        }
        FieldValidation::Warn => {
            for text in &decoded.strict {
                scope.context.warnings.add(text.clone());
            }
        }
        FieldValidation::Ignore => {}
    }
    let mut object = decoded.object;
    TypeMeta::of(&object).expect(resource)?;
    meta::set_type(&mut object, resource);
    omit_empty_metadata(&mut object);
    Ok(object)
}

/// Empty lists and maps of the metadata are as good as absent, and never shown (upstream's `omitempty`).
fn omit_empty_metadata(object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    for field in ["annotations", "finalizers", "labels", "managedFields", "ownerReferences"] {
        let empty = match metadata.get(field) {
            Some(Value::Null) => true,
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Object(map)) => map.is_empty(),
            _ => false,
        };
        if empty {
            metadata.remove(field);
        }
    }
}

/// Puts an object into the request's namespace.
///
/// # Errors
/// 400 when it names another one.
pub(crate) fn place(scope: &Scope<'_>, object: &mut Value) -> Result<(), Status> {
    if !scope.resource.namespaced {
        if !meta::namespace(object).is_empty() {
            return Err(Status::bad_request("namespace is not allowed on this type"));
        }
        return Ok(());
    }
    let own = meta::namespace(object);
    if !own.is_empty() && own != scope.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    meta::set_metadata(object, "namespace", scope.namespace);
    Ok(())
}

/// A body of any kind as a value, for what is no resource (`Binding`, `Eviction`, `Scale`, `DeleteOptions`).
///
/// # Errors
/// 400 when it cannot be read, 415 for media types that are not understood.
pub(crate) fn value(context: &RequestContext, body: &[u8]) -> Result<Value, Status> {
    match Media::of(&context.headers)? {
        Media::Json => serde_json::from_slice(body).map_err(|error| {
            Status::bad_request(format!("couldn't get version/kind; json parse error: {error}"))
        }),
        Media::Yaml => yaml_value(body),
    }
}

/// Any YAML document as a value.
///
/// # Errors
/// 400 when it is none.
fn yaml_value(body: &[u8]) -> Result<Value, Status> {
    let text = std::str::from_utf8(body).map_err(|error| Status::bad_request(error.to_string()))?;
    schema::decode::yaml_document(text)
        .map(|document| document.value)
        .map_err(|error| Status::bad_request(error.to_string()))
}
