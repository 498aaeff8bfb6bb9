//! What kinds differ in: the calls into `sampan_api`'s strategies and validation, and upstream's small per-kind switches.

use sampan_api::{FieldError, Resource, Status, meta, strategy, validation};
use serde_json::Value;

use super::{Scope, inert};
use crate::authorization::{self, Escalation};

/// Before an object is stored for the first time.
pub(super) fn prepare_for_create(resource: &Resource, object: &mut Value) {
    strategy::prepare_for_create(resource, object);
}

/// Before an object replaces another.
pub(super) fn prepare_for_update(resource: &Resource, object: &mut Value, old: &Value, subresource: &str) {
    strategy::prepare_for_update(resource, object, old, (!subresource.is_empty()).then_some(subresource));
}

/// 422 unless the object may be created.
pub(super) fn validate_create(scope: &Scope<'_>, object: &Value) -> Result<(), Status> {
    findings(scope, object, validation::validate_create(scope.storage(), object))
}

/// 422 unless the object may replace `old`.
pub(super) fn validate_update(scope: &Scope<'_>, object: &Value, old: &Value) -> Result<(), Status> {
    let resource = scope.storage();
    let found = match scope.subresource {
        "" => validation::validate_update(resource, object, old),
        "status" => validation::validate_status_update(resource, object, old),
        other => validation::validate_subresource(resource, other, object, old),
    };
    findings(scope, object, found)
}

fn findings(scope: &Scope<'_>, object: &Value, found: Vec<FieldError>) -> Result<(), Status> {
    if found.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(scope.resource.group, scope.resource.kind, meta::name(object), &found))
}

/// Warnings for an object that was created.
pub(super) fn warn_create(scope: &Scope<'_>, object: &Value) {
    if let Some(text) = inert::warning(scope.resource) {
        scope.context.warnings.add(text);
    }
    warn(scope, object);
}

fn warn(scope: &Scope<'_>, object: &Value) {
    for text in validation::warnings(scope.storage(), object) {
        scope.context.warnings.add(text);
    }
}

/// Warnings for an object that was changed; status writes warn of nothing.
pub(super) fn warn_update(scope: &Scope<'_>, object: &Value, old: &Value) {
    if scope.subresource.is_empty() && object.get("spec") != old.get("spec") {
        warn(scope, object);
    }
}

/// Kinds that PUT creates (their strategies' `AllowCreateOnUpdate`).
pub(super) fn creates_on_update(resource: &Resource) -> bool {
    matches!(
        (resource.group, resource.plural),
        ("", "endpoints" | "events" | "limitranges" | "podtemplates" | "services")
            | ("coordination.k8s.io", "leases")
            | ("node.k8s.io", "runtimeclasses")
            | ("rbac.authorization.k8s.io", _)
    )
}

/// Kinds that PUT may overwrite without saying which version (`AllowUnconditionalUpdate`).
pub(super) fn updates_unconditionally(resource: &Resource) -> bool {
    !matches!(
        (resource.group, resource.plural),
        ("coordination.k8s.io" | "node.k8s.io", _)
            | ("policy", "poddisruptionbudgets")
            | ("storage.k8s.io", "csidrivers" | "csinodes" | "volumeattachments")
            | ("admissionregistration.k8s.io", _)
            | ("apiextensions.k8s.io" | "apiregistration.k8s.io", _)
    )
}

/// Kinds whose dependents stay when nothing is said (batch/v1 Jobs, for compatibility).
pub(super) fn orphans_by_default(resource: &Resource) -> bool {
    matches!((resource.group, resource.plural), ("batch", "jobs") | ("", "replicationcontrollers"))
}

/// Kinds whose deletion answers the object; the others answer a Status (`ReturnDeletedObject`).
pub(crate) fn answers_deleted_object(resource: &Resource) -> bool {
    matches!(
        (resource.group, resource.plural),
        (
            "",
            "pods"
                | "namespaces"
                | "podtemplates"
                | "persistentvolumes"
                | "persistentvolumeclaims"
                | "resourcequotas"
                | "serviceaccounts"
                | "services"
        ) | ("storage.k8s.io", _)
    )
}

/// 422 for a PUT without the version that it must name.
pub(super) fn resource_version_required(resource: &Resource, name: &str) -> Status {
    let error = FieldError::invalid("metadata.resourceVersion", 0, "must be specified for an update");
    Status::invalid(resource.group, resource.kind, name, &[error])
}

/// Nobody grants by roles or bindings what they do not hold.
pub(super) async fn check_escalation(
    scope: &Scope<'_>,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    let resource = scope.storage();
    if resource.group != "rbac.authorization.k8s.io" || !scope.subresource.is_empty() {
        return Ok(());
    }
    let authorizer = &scope.server.authorization;
    authorizer.catch_up().await;
    let name = meta::name(object);
    authorization::check_escalation(
        authorizer,
        &scope.context.user,
        resource.plural,
        scope.namespace,
        object,
        old,
    )
    .map_err(|error| match error {
        Escalation::Forbidden(why) => Status::forbidden(resource.group, resource.plural, name, &why),
        Escalation::MissingRole(missing) => {
            Status { code: 404, reason: "NotFound".into(), message: missing.to_string(), ..Status::default() }
        }
    })
}
