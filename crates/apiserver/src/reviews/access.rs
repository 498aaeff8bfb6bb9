//! SubjectAccessReview and its kin: may somebody do something.

use sampan_api::{FieldError, Status};
use serde_json::{Value, json};

use crate::ApiServer;
use crate::authorization::{Attributes, Decision};
use crate::context::RequestContext;
use crate::user::UserInfo;

const GROUP: &str = "authorization.k8s.io";

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// Answers the review's status.
pub(super) async fn review(
    server: &ApiServer,
    context: &RequestContext,
    kind: &str,
    object: &Value,
) -> Result<Value, Status> {
    let spec = &object["spec"];
    check(kind, object, &context.info.namespace)?;
    let user = match kind {
        "SelfSubjectAccessReview" => (*context.user).clone(),
        _ => UserInfo {
            username: text(spec, "user").to_owned(),
            uid: text(spec, "uid").to_owned(),
            groups: serde_json::from_value(spec["groups"].clone()).unwrap_or_default(),
            extra: serde_json::from_value(spec["extra"].clone()).unwrap_or_default(),
        },
    };
    let resource = &spec["resourceAttributes"];
    let path = &spec["nonResourceAttributes"];
    let selector = field_selector(&resource["fieldSelector"]);
    let attributes = if resource.is_object() {
        Attributes {
            is_resource: true,
            verb: text(resource, "verb"),
            group: text(resource, "group"),
            version: text(resource, "version"),
            resource: text(resource, "resource"),
            subresource: text(resource, "subresource"),
            namespace: text(resource, "namespace"),
            name: text(resource, "name"),
            path: "",
            field_selector: &selector,
        }
    } else {
        Attributes { verb: text(path, "verb"), path: text(path, "path"), ..Attributes::default() }
    };
    let decision = server.authorization.check(&user, &attributes).await;
    let mut status = json!({"allowed": decision.is_allowed()});
    let reason = match &decision {
        Decision::Deny(reason) => {
            status["denied"] = true.into();
            reason
        }
        Decision::Allow(reason) | Decision::NoOpinion(reason) => reason,
    };
    if !reason.is_empty() {
        status["reason"] = reason.clone().into();
    }
    Ok(status)
}

fn check(kind: &str, object: &Value, namespace: &str) -> Result<(), Status> {
    let spec = &object["spec"];
    let (resource, path) =
        (spec["resourceAttributes"].is_object(), spec["nonResourceAttributes"].is_object());
    let mut errors = Vec::new();
    if resource && path {
        let why = "cannot be specified in combination with resourceAttributes";
        errors.push(FieldError::invalid(
            "spec.nonResourceAttributes",
            spec["nonResourceAttributes"].clone(),
            why,
        ));
    }
    if !resource && !path {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.push(FieldError::invalid("spec.resourceAttributes", spec["resourceAttributes"].clone(), why));
    }
    let nobody = text(spec, "user").is_empty() && spec["groups"].as_array().is_none_or(Vec::is_empty);
    if kind != "SelfSubjectAccessReview" && nobody {
        let why = "at least one of user or group must be specified";
        errors.push(FieldError::invalid("spec.user", text(spec, "user"), why));
    }
    if kind == "LocalSubjectAccessReview" {
        let asked = text(&spec["resourceAttributes"], "namespace");
        if resource && asked != namespace {
            let why = "must match metadata.namespace";
            errors.push(FieldError::invalid("spec.resourceAttributes.namespace", asked, why));
        }
        if path {
            let why = "disallowed on this kind of request";
            errors.push(FieldError::invalid(
                "spec.nonResourceAttributes",
                spec["nonResourceAttributes"].clone(),
                why,
            ));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(GROUP, kind, "", &errors)) }
}

/// The selector of a review as the text that a request would carry.
fn field_selector(selector: &Value) -> String {
    if let Some(raw) = selector["rawSelector"].as_str() {
        return raw.to_owned();
    }
    let terms = selector["requirements"].as_array().map(Vec::as_slice).unwrap_or_default();
    let equal = terms.iter().filter(|term| term["operator"] == "In").filter_map(|term| match term["values"]
        .as_array()
    {
        Some(values) if values.len() == 1 => Some(format!("{}={}", text(term, "key"), values[0].as_str()?)),
        _ => None,
    });
    equal.collect::<Vec<_>>().join(",")
}
