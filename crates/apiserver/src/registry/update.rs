//! Updating objects: the loop that reads, changes, checks and writes until nobody else was faster.

use sampan_api::{Status, meta};
use serde_json::Value;

use super::create::create;
use super::{Scope, allocation, certificates, codec, rules};
use crate::admission::{Attributes, Operation};

/// How often a write that does not insist on a version is tried again when another one was faster.
const ATTEMPTS: usize = 64;

/// Makes the object that the client wants from the one that is there (`None`: nothing is there), both in the client's
/// version. Called again when another write came between.
pub type Change<'a> = dyn Fn(Option<&Value>) -> Result<Value, Status> + Send + Sync + 'a;

/// What became of an update.
#[derive(Debug)]
pub struct Updated {
    /// The object now, in the client's version.
    pub object: Value,
    /// Whether it was created.
    pub created: bool,
}

/// Updates an object. With `may_create` a missing one is created where its kind allows that.
///
/// # Errors
/// 404, 409 when the change insists on a version that is gone by, and whatever admission and validation object to.
pub async fn update(
    scope: &Scope<'_>,
    name: &str,
    may_create: bool,
    change: &Change<'_>,
) -> Result<Updated, Status> {
    let registry = &scope.server.registry;
    let resource = scope.storage();
    for _ in 0..ATTEMPTS {
        let Some(current) = registry.get(resource, scope.namespace, name).await? else {
            if may_create && scope.subresource.is_empty() && rules::creates_on_update(resource) {
                let mut object = change(None)?;
                if !meta::resource_version(&object).is_empty() {
                    return Err(scope.not_found(name));
                }
                meta::set_metadata(&mut object, "name", name);
                match create(scope, object).await {
                    Ok(object) => return Ok(Updated { object, created: true }),
                    Err(status) if status.reason == "AlreadyExists" => continue,
                    Err(status) => return Err(status),
                }
            }
            return Err(scope.not_found(name));
        };
        if let Some(object) = attempt(scope, name, &current, change).await? {
            return Ok(Updated { object: scope.from_storage(object), created: false });
        }
    }
    Err(scope.modified(name))
}

/// One round: `None` when another write was faster and the change does not insist on a version.
async fn attempt(
    scope: &Scope<'_>,
    name: &str,
    current: &Value,
    change: &Change<'_>,
) -> Result<Option<Value>, Status> {
    let registry = &scope.server.registry;
    let resource = scope.storage();
    let seen = meta::resource_version(current).to_owned();
    let wanted = if scope.converts() {
        change(Some(&scope.from_storage(current.clone())))?
    } else {
        change(Some(current))?
    };
    let mut object = scope.to_storage(wanted);

    let asked = meta::resource_version(&object).to_owned();
    let uid = meta::uid(&object);
    if !uid.is_empty() && uid != meta::uid(current) {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            meta::uid(current)
        );
        return Err(scope.conflict(name, &why));
    }
    if asked.is_empty() || asked == "0" {
        if !rules::updates_unconditionally(resource) && scope.context.info.verb == "update" {
            return Err(rules::resource_version_required(scope.resource, name));
        }
    } else if asked != seen {
        return Err(scope.modified(name));
    }
    keep_system_fields(&mut object, current, scope);

    let mut attributes = Attributes::new(scope, Operation::Update, name.to_owned());
    attributes.object = object;
    attributes.old = Some(current);
    scope.server.admission.admit(&mut attributes).await?;
    object = std::mem::take(&mut attributes.object);

    rules::prepare_for_update(resource, &mut object, current, scope.subresource);
    if certificates::is_request(scope) {
        certificates::on_update(scope, &mut object)?;
    }
    allocation::keep(scope, &mut object, current);
    rules::validate_update(scope, &object, current)?;
    rules::check_escalation(scope, &object, Some(current)).await?;
    let allocation = allocation::on_update(scope, &mut object, current).await?;
    attributes.object = object;
    scope.server.admission.validate(&attributes).await?;
    object = std::mem::take(&mut attributes.object);
    rules::warn_update(scope, &object, current);

    let revision = seen.parse().unwrap_or_default();
    let insists = !asked.is_empty() && asked != "0";
    let written = if deletes(scope, &object, current) {
        if scope.dry_run {
            Some(revision)
        } else {
            registry.remove(resource, scope.namespace, name, revision).await?
        }
    } else if scope.dry_run || codec::encode(resource, &object) == codec::encode(resource, current) {
        Some(revision)
    } else {
        registry.put(resource, scope.namespace, name, &object, revision).await?
    };
    drop(allocation);
    match written {
        Some(revision) => {
            meta::set_resource_version(&mut object, &revision.to_string());
            Ok(Some(object))
        }
        None if insists => Err(scope.modified(name)),
        None => Ok(None),
    }
}

/// What clients may leave out but never change.
fn keep_system_fields(object: &mut Value, current: &Value, scope: &Scope<'_>) {
    let old = current.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    let namespaced = scope.resource.namespaced;
    let metadata = meta::metadata_mut(object);
    metadata.remove("managedFields");
    metadata.remove("selfLink");
    for field in ["uid", "creationTimestamp", "name"] {
        let absent = metadata.get(field).is_none_or(|value| value.is_null() || value == "");
        if absent && let Some(value) = old.get(field) {
            metadata.insert(field.into(), value.clone());
        }
    }
    if namespaced {
        metadata.insert("namespace".into(), scope.namespace.into());
    } else {
        metadata.remove("namespace");
    }
    // A client that does not send these does not undo a deletion.
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "generation", "resourceVersion"] {
        match old.get(field) {
            Some(value) => metadata.insert(field.into(), value.clone()),
            None => metadata.remove(field),
        };
    }
}

/// Whether the write takes away the last thing that keeps an object which is being deleted.
fn deletes(scope: &Scope<'_>, object: &Value, current: &Value) -> bool {
    let doomed = meta::is_deleting(current)
        && meta::finalizers(object).next().is_none()
        && meta::deletion_grace_period_seconds(current).unwrap_or_default() == 0;
    if scope.storage().plural == "namespaces" && scope.storage().group.is_empty() {
        return doomed && meta::list(object, "/spec/finalizers").is_empty();
    }
    doomed && meta::deletion_grace_period_seconds(current) == Some(0)
}
