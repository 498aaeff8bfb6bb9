//! Deleting objects: preconditions, graceful deletion of pods, finalizers, and namespaces, which empty themselves first.

use jiff::{SignedDuration, Timestamp};
use sampan_api::{Status, meta};
use serde_json::{Value, json};

use super::{Scope, rules};
use crate::admission::{Attributes, Operation};

/// How often a deletion is tried again when another write came between.
const ATTEMPTS: usize = 64;
/// Keeps an object until its dependents are orphaned.
const ORPHAN: &str = "orphan";
/// Keeps an object until its dependents are deleted.
const FOREGROUND: &str = "foregroundDeletion";

/// What becomes of dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They stay.
    Orphan,
    /// They are deleted afterwards.
    Background,
    /// They are deleted first.
    Foreground,
}

/// `DeleteOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds that a pod has to stop; its own setting when `None`.
    pub grace_period_seconds: Option<i64>,
    /// The object must have this uid.
    pub uid: Option<String>,
    /// The object must have this version.
    pub resource_version: Option<String>,
    /// What becomes of dependents.
    pub propagation: Option<Propagation>,
    /// The old way to say it.
    pub orphan_dependents: Option<bool>,
}

/// What became of a deletion.
#[derive(Debug)]
pub struct Deleted {
    /// The object as it was last, in the client's version.
    pub object: Value,
    /// Whether it is gone.
    pub gone: bool,
}

/// Deletes an object, or begins to.
///
/// # Errors
/// 404, 409 when a precondition does not hold, and whatever admission objects to.
pub async fn delete(scope: &Scope<'_>, name: &str, options: &DeleteOptions) -> Result<Deleted, Status> {
    for _ in 0..ATTEMPTS {
        let current = scope.server.registry.get(scope.storage(), scope.namespace, name).await?;
        let current = current.ok_or_else(|| scope.not_found(name))?;
        let mut attributes = Attributes::new(scope, Operation::Delete, name.to_owned());
        attributes.old = Some(&current);
        scope.server.admission.admit(&mut attributes).await?;
        scope.server.admission.validate(&attributes).await?;
        preconditions(scope, name, &current, options)?;
        if let Some(mut deleted) = attempt(scope, name, current, options).await? {
            deleted.object = scope.from_storage(deleted.object);
            return Ok(deleted);
        }
    }
    Err(scope.modified(name))
}

/// Refuses an object that is not the one that is meant.
pub(crate) fn preconditions(
    scope: &Scope<'_>,
    name: &str,
    current: &Value,
    options: &DeleteOptions,
) -> Result<(), Status> {
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != meta::uid(current)) {
        let why = format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been \
             deleted and then recreated",
            meta::uid(current)
        );
        return Err(scope.conflict(name, &why));
    }
    let version = meta::resource_version(current);
    if let Some(wanted) = options.resource_version.as_deref().filter(|wanted| *wanted != version) {
        let why = format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record \
             ({version}). The object might have been modified"
        );
        return Err(scope.conflict(name, &why));
    }
    Ok(())
}

/// How far one call takes the deletion of an object.
enum Step {
    /// Nothing to do: it is on its way already.
    Pending,
    /// Its marks changed and it stays for now.
    Marked,
    /// Its marks changed, and now it goes.
    MarkedThenGone,
    /// It goes.
    Gone,
}

async fn attempt(
    scope: &Scope<'_>,
    name: &str,
    current: Value,
    options: &DeleteOptions,
) -> Result<Option<Deleted>, Status> {
    let registry = &scope.server.registry;
    let resource = scope.storage();
    let mut revision: i64 = meta::resource_version(&current).parse().unwrap_or_default();
    let mut object = current.clone();
    let step = if resource.group.is_empty() && resource.plural == "namespaces" {
        mark_namespace(&mut object)
    } else {
        mark(scope, &mut object, options)
    };
    if matches!(step, Step::Pending) {
        return Ok(Some(Deleted { object: current, gone: false }));
    }
    if scope.dry_run {
        return Ok(Some(Deleted { object, gone: !matches!(step, Step::Marked) }));
    }
    if matches!(step, Step::Marked | Step::MarkedThenGone) && object != current {
        match registry.put(resource, scope.namespace, name, &object, revision).await? {
            Some(written) => revision = written,
            None => return Ok(None),
        }
        meta::set_resource_version(&mut object, &revision.to_string());
    }
    if matches!(step, Step::Marked) {
        return Ok(Some(Deleted { object, gone: false }));
    }
    Ok(match registry.remove(resource, scope.namespace, name, revision).await? {
        Some(revision) => {
            meta::set_resource_version(&mut object, &revision.to_string());
            Some(Deleted { object, gone: true })
        }
        // Somebody else finished what this call began.
        None if matches!(step, Step::MarkedThenGone)
            && registry.get(resource, scope.namespace, name).await?.is_none() =>
        {
            Some(Deleted { object, gone: true })
        }
        None => None,
    })
}

/// A namespace first becomes Terminating; it goes once its finalizers of both kinds are gone.
fn mark_namespace(object: &mut Value) -> Step {
    let kept =
        !meta::list(object, "/spec/finalizers").is_empty() || meta::finalizers(object).next().is_some();
    if !meta::is_deleting(object) {
        let now = meta::format_time(Timestamp::now());
        meta::set_metadata(object, "deletionTimestamp", &now);
        if let Some(object) = object.as_object_mut() {
            let status = object.entry("status").or_insert_with(|| json!({}));
            meta::object_mut(status).insert("phase".into(), json!("Terminating"));
        }
        return if kept { Step::Marked } else { Step::MarkedThenGone };
    }
    if kept { Step::Pending } else { Step::Gone }
}

fn mark(scope: &Scope<'_>, object: &mut Value, options: &DeleteOptions) -> Step {
    let finalizers_before: Vec<String> = meta::finalizers(object).map(str::to_owned).collect();
    let graceful = match graceful(scope, object, options) {
        Graceful::Pending => return Step::Pending,
        Graceful::Yes(seconds) => Some(seconds),
        Graceful::No => None,
    };
    let finalizers = finalizers_after(scope, &finalizers_before, options);
    if finalizers != finalizers_before {
        let metadata = meta::metadata_mut(object);
        if finalizers.is_empty() {
            metadata.remove("finalizers");
        } else {
            metadata.insert("finalizers".into(), json!(finalizers));
        }
    }
    let kept = !finalizers.is_empty();
    if graceful.is_none() && kept {
        mark_as_deleting(object);
    }
    match graceful {
        _ if kept => Step::Marked,
        Some(seconds) if seconds > 0 => Step::Marked,
        Some(_) => Step::MarkedThenGone,
        None => Step::Gone,
    }
}

enum Graceful {
    No,
    Yes(i64),
    Pending,
}

/// Marks a pod for graceful deletion (POD-30..32).
fn graceful(scope: &Scope<'_>, object: &mut Value, options: &DeleteOptions) -> Graceful {
    let asked = options.grace_period_seconds.map(|seconds| if seconds < 0 { 1 } else { seconds });
    let now = Timestamp::now();
    if let Some(deletion) = meta::deletion_timestamp(object) {
        let Some(grace) = meta::deletion_grace_period_seconds(object).filter(|grace| *grace != 0) else {
            return Graceful::No;
        };
        return match asked {
            Some(period) if period < grace => {
                let at = deletion - SignedDuration::from_secs(grace) + SignedDuration::from_secs(period);
                set_deletion(object, at.max(now), period);
                Graceful::Yes(period)
            }
            _ => Graceful::Pending,
        };
    }
    let is_pod = scope.storage().group.is_empty() && scope.storage().plural == "pods";
    if !is_pod {
        return Graceful::No;
    }
    let own = object.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
    let mut period = asked.or(own).unwrap_or(30);
    if meta::str_at(object, "/spec/nodeName").is_empty()
        || matches!(meta::str_at(object, "/status/phase"), "Succeeded" | "Failed")
    {
        period = 0;
    }
    if period < 0 {
        period = 1;
    }
    set_deletion(object, now + SignedDuration::from_secs(period), period);
    bump_generation(object);
    Graceful::Yes(period)
}

fn set_deletion(object: &mut Value, at: Timestamp, grace: i64) {
    let metadata = meta::metadata_mut(object);
    metadata.insert("deletionTimestamp".into(), json!(meta::format_time(at)));
    metadata.insert("deletionGracePeriodSeconds".into(), json!(grace));
}

fn bump_generation(object: &mut Value) {
    let generation = meta::generation(object);
    if generation > 0 {
        meta::metadata_mut(object).insert("generation".into(), json!(generation + 1));
    }
}

/// Marks an object that only its finalizers keep.
fn mark_as_deleting(object: &mut Value) {
    let now = Timestamp::now();
    if !meta::is_deleting(object) {
        bump_generation(object);
    }
    let at = meta::deletion_timestamp(object).map_or(now, |at| at.min(now));
    set_deletion(object, at, 0);
}

/// The finalizers that the garbage collector needs for what was asked.
fn finalizers_after(scope: &Scope<'_>, before: &[String], options: &DeleteOptions) -> Vec<String> {
    let has = |name: &str| before.iter().any(|finalizer| finalizer == name);
    let orphan = match (options.orphan_dependents, options.propagation) {
        (Some(orphan), _) => orphan,
        (None, Some(propagation)) => propagation == Propagation::Orphan,
        (None, None) if has(ORPHAN) => true,
        (None, None) if has(FOREGROUND) => false,
        (None, None) => rules::orphans_by_default(scope.resource),
    };
    let foreground = match (options.orphan_dependents, options.propagation) {
        (Some(_), _) => false,
        (None, Some(propagation)) => propagation == Propagation::Foreground,
        (None, None) => has(FOREGROUND) && !has(ORPHAN),
    };
    let mut after: Vec<String> =
        before.iter().filter(|finalizer| *finalizer != ORPHAN && *finalizer != FOREGROUND).cloned().collect();
    // Events are never owners: nothing has to be looked for.
    if scope.storage().plural == "events" {
        return after;
    }
    if orphan {
        after.push(ORPHAN.to_owned());
    }
    if foreground {
        after.push(FOREGROUND.to_owned());
    }
    after
}
