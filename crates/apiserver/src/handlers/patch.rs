//! `patch`: JSON patch, merge patch and strategic merge patch, applied again when another write came between.

use bytes::Bytes;
use http::Request;
use http::header::CONTENT_TYPE;
use sampan_api::patch::{PatchError, json_patch, merge_patch, strategic_merge_patch};
use sampan_api::{Resource, Status, defaulting, meta};
use serde_json::Value;

use super::{body, decode, present};
use crate::context::RequestContext;
use crate::negotiate::Accepted;
use crate::registry::{Scope, update as registry};
use crate::respond::{Body, Response};

/// The media types of patches, in upstream's order.
const MEDIA_TYPES: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];
/// How many operations a JSON patch may have (upstream's bound).
const OPERATIONS: usize = 10_000;

/// A patch of one of the three kinds.
pub(crate) enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' own, which knows the keys of lists.
    Strategic(Value),
}

impl Patch {
    /// Reads a patch.
    ///
    /// # Errors
    /// 415 for other media types, 400 for what is no patch.
    pub(crate) fn read(context: &RequestContext, body: &Bytes) -> Result<Self, Status> {
        let header =
            context.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media = header.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if media == "application/apply-patch+yaml" || media == "application/apply-patch+cbor" {
            let mut status = Status::unsupported_media_type(&MEDIA_TYPES);
            status.message = "server-side apply is not supported yet: use client-side apply (kubectl apply without --server-side)".into();
            return Err(status);
        }
        if !MEDIA_TYPES.contains(&media.as_str()) {
            return Err(Status::unsupported_media_type(&MEDIA_TYPES));
        }
        let value: Value = serde_json::from_slice(body)
            .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
        Ok(match media.as_str() {
            "application/json-patch+json" => {
                let Some(operations) = value.as_array() else {
                    return Err(Status::bad_request(
                        "error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch",
                    ));
                };
                if operations.len() > OPERATIONS {
                    return Err(Status::request_entity_too_large(format!(
                        "The allowed maximum operations in a JSON patch is {OPERATIONS}, got {}",
                        operations.len()
                    )));
                }
                Self::Json(value)
            }
            "application/merge-patch+json" => Self::Merge(value),
            _ => Self::Strategic(value),
        })
    }

    /// Applies the patch.
    ///
    /// # Errors
    /// 400 for malformed patches, 422 for those that this object refuses.
    pub(crate) fn apply(&self, resource: &Resource, object: &Value) -> Result<Value, Status> {
        let patched = match self {
            Self::Json(patch) => json_patch(object, patch),
            Self::Merge(patch) => merge_patch(object, patch),
            Self::Strategic(patch) => strategic_merge_patch(resource, object, patch),
        };
        patched.map_err(|error| match error {
            PatchError::Malformed(why) => Status::bad_request(why),
            PatchError::Unprocessable(why) => {
                let mut status = Status::invalid("", "", "", &[]);
                // As upstream: the details name nothing, so that kubectl shows the text.
                status.message =
                    format!("the server rejected our request due to an error in our request: {why}");
                status
            }
        })
    }
}

/// Patches an object (or the part of it that a subresource is).
pub(crate) async fn patch(scope: &Scope<'_>, request: Request<Body>) -> Result<Response, Status> {
    let context = scope.context;
    let accepted = Accepted::negotiate(&context.headers, &context.query, true)?;
    let name = context.info.name.clone();
    let bytes = body::read(request).await?;
    let patch = Patch::read(context, &bytes)?;
    let change = |current: Option<&Value>| {
        let current = current.ok_or_else(|| scope.not_found(&name))?;
        let patched = patch.apply(scope.resource, current)?;
        let mut object = decode::patched(scope, scope.resource, patched)?;
        if meta::name(&object) != name {
            return Err(Status::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({name})",
                meta::name(&object)
            )));
        }
        decode::place(scope, &mut object)?;
        defaulting::apply_defaults(scope.resource, &mut object);
        // Only a version that the patch itself names is insisted on.
        if meta::resource_version(&object) == meta::resource_version(current) && !patch.names_version() {
            meta::set_resource_version(&mut object, "");
        }
        Ok(object)
    };
    let updated = registry::update(scope, &name, false, &change).await?;
    present(scope, &accepted, if updated.created { 201 } else { 200 }, updated.object)
}

impl Patch {
    fn names_version(&self) -> bool {
        match self {
            Self::Merge(patch) | Self::Strategic(patch) => !meta::resource_version(patch).is_empty(),
            Self::Json(operations) => operations.as_array().is_some_and(|operations| {
                operations.iter().any(|operation| {
                    meta::str_of(operation, "path") == "/metadata/resourceVersion"
                        && matches!(meta::str_of(operation, "op"), "add" | "replace")
                })
            }),
        }
    }
}
