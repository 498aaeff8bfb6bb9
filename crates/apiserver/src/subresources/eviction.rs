//! `pods/eviction`: a deletion that disruption budgets may refuse (policy/v1).

use http::Request;
use jiff::Timestamp;
use sampan_api::selector::LabelSelector;
use sampan_api::{Status, meta, scheme};
use serde_json::{Value, json};

use super::binding::set_condition;
use crate::admission::{Attributes, Operation};
use crate::handlers::{body, decode, options};
use crate::negotiate::Accepted;
use crate::registry::Scope;
use crate::registry::delete::{self, DeleteOptions};
use crate::respond::{self, Body, Response};

/// How often the budget is tried again when another eviction came between.
const ATTEMPTS: usize = 20;
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
/// How long the answer asks to wait when a budget has not been looked at yet.
const RETRY_SECONDS: i32 = 10;

/// Evicts the pod in the path.
pub(super) async fn create(scope: &Scope<'_>, request: Request<Body>) -> Result<Response, Status> {
    let context = scope.context;
    let accepted = Accepted::negotiate(&context.headers, &context.query, false)?;
    let name = context.info.name.clone();
    let bytes = body::read(request).await?;
    let eviction = decode::value(context, &bytes)?;
    if !meta::name(&eviction).is_empty() && meta::name(&eviction) != name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let (options, dry) = match eviction.get("deleteOptions").filter(|options| !options.is_null()) {
        Some(options) => options::delete_value(options)?,
        None => (DeleteOptions::default(), false),
    };
    let dry_run = scope.dry_run || dry;
    let mut attributes = Attributes::new(scope, Operation::Create, name.clone());
    scope.server.admission.admit(&mut attributes).await?;
    scope.server.admission.validate(&attributes).await?;

    for _ in 0..ATTEMPTS {
        if evict(scope, &name, dry_run, options.clone()).await? {
            return respond::value(context, &accepted, 201, &Status::success(201).to_value());
        }
    }
    Err(Status::too_many_requests(REFUSED, RETRY_SECONDS))
}

/// Evicts the pod as it is now; false when it has changed meanwhile and has to be judged again.
async fn evict(
    scope: &Scope<'_>,
    name: &str,
    dry_run: bool,
    mut options: DeleteOptions,
) -> Result<bool, Status> {
    let pod = scope.server.registry.get(scope.resource, scope.namespace, name).await?;
    let pod = pod.ok_or_else(|| scope.not_found(name))?;
    delete::preconditions(scope, name, &pod, &options)?;
    let phase = meta::str_at(&pod, "/status/phase");
    let passage = match meta::is_deleting(&pod) || matches!(phase, "Succeeded" | "Failed") {
        true => Passage::Open,
        // No budget counts it yet.
        false if phase == "Pending" => Passage::Pending,
        false => budget(scope, &pod, dry_run).await?,
    };
    // What holds for this version of the pod only is asked of this version only, unless the client has its own idea.
    let bound = !matches!(passage, Passage::Open) && options.resource_version.is_none();
    if bound {
        options.resource_version = Some(meta::resource_version(&pod).to_owned());
    }
    match (remove(scope, &pod, dry_run, options).await, passage) {
        (Err(error), Passage::Pending) if bound && error.code == 409 => Ok(false),
        // It is another one now, perhaps ready: it is judged again when the client comes back.
        (Err(error), Passage::Unready(budget)) if bound && error.code == 409 => Err(in_process(&budget)),
        (result, _) => result.map(|()| true),
    }
}

/// How a pod got past its budget.
enum Passage {
    /// It has none, or a disruption was taken from it.
    Open,
    /// Nothing was taken from this budget, because the pod is not ready: that holds for this version of the pod only.
    Unready(String),
    /// It has not begun: that holds for this version of the pod only.
    Pending,
}

async fn remove(
    scope: &Scope<'_>,
    pod: &Value,
    dry_run: bool,
    mut options: DeleteOptions,
) -> Result<(), Status> {
    let name = meta::name(pod);
    if !dry_run && !meta::is_deleting(pod) {
        note_disruption(scope, name, &mut options).await?;
    }
    let whole = Scope { subresource: "", dry_run, ..*scope };
    delete::delete(&whole, name, &options).await.map(drop)
}

/// The budget is about to say something else.
fn in_process(budget: &str) -> Status {
    let cause = format!("The disruption budget {budget} is still being processed by the server.");
    Status::too_many_requests(REFUSED, RETRY_SECONDS).with_cause("DisruptionBudget", &cause)
}

/// Whether the budget lets a pod go that is not ready, whatever it allows (`unhealthyPodEvictionPolicy`): always, or
/// (`IfHealthyBudget`, the default) when those it protects are there without it.
fn lets_unready_go(budget: &Value) -> bool {
    let number = |pointer: &str| budget.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
    let desired = number("/status/desiredHealthy");
    meta::str_at(budget, "/spec/unhealthyPodEvictionPolicy") == "AlwaysAllow"
        || (desired > 0 && number("/status/currentHealthy") >= desired)
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Takes one disruption from the pod's budget, if it has one and needs it.
async fn budget(scope: &Scope<'_>, pod: &Value, dry_run: bool) -> Result<Passage, Status> {
    let Some(resource) = scheme::find("policy", "v1", "poddisruptionbudgets") else {
        return Ok(Passage::Open);
    };
    let registry = &scope.server.registry;
    for _ in 0..ATTEMPTS {
        registry.catch_up().await?;
        let Some(cache) = registry.cache(resource) else { return Ok(Passage::Open) };
        let all = cache.snapshot(scope.namespace, 0).objects;
        let matching: Vec<Value> = all
            .iter()
            .map(|budget| budget.value())
            .filter(|budget| {
                let selector = LabelSelector::from_object(budget.pointer("/spec/selector"));
                selector.is_ok_and(|selector| selector.matches(pod))
            })
            .collect();
        let mut budget = match <[Value; 1]>::try_from(matching) {
            Ok([budget]) => budget,
            Err(none) if none.is_empty() => return Ok(Passage::Open),
            Err(_) => {
                return Err(Status::internal_error(
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                ));
            }
        };
        let name = meta::name(&budget).to_owned();
        if !is_ready(pod) && lets_unready_go(&budget) {
            return Ok(Passage::Unready(name));
        }
        let number = |pointer: &str| budget.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
        if number("/status/observedGeneration") < meta::generation(&budget) {
            return Err(in_process(&name));
        }
        let allowed = number("/status/disruptionsAllowed");
        if allowed <= 0 {
            let cause = format!(
                "The disruption budget {name} needs {} healthy pods and has {} currently",
                number("/status/desiredHealthy"),
                number("/status/currentHealthy")
            );
            return Err(Status::too_many_requests(REFUSED, 0).with_cause("DisruptionBudget", &cause));
        }
        if dry_run {
            return Ok(Passage::Open);
        }
        let revision = meta::resource_version(&budget).parse().unwrap_or_default();
        let status = meta::object_mut(&mut budget["status"]);
        status.insert("disruptionsAllowed".into(), json!(allowed - 1));
        let disrupted = meta::object_mut(status.entry("disruptedPods").or_insert(Value::Null));
        disrupted.insert(meta::name(pod).to_owned(), json!(meta::format_time(Timestamp::now())));
        if registry.put(resource, scope.namespace, &name, &budget, revision).await?.is_some() {
            return Ok(Passage::Open);
        }
    }
    Err(Status::too_many_requests(REFUSED, RETRY_SECONDS))
}

/// Says in the pod's status why it goes. That makes a new version: a deletion that insists on one insists on this then.
async fn note_disruption(scope: &Scope<'_>, name: &str, options: &mut DeleteOptions) -> Result<(), Status> {
    let registry = &scope.server.registry;
    for _ in 0..ATTEMPTS {
        let Some(mut pod) = registry.get(scope.resource, scope.namespace, name).await? else { return Ok(()) };
        // Another pod of this name is not evicted, and is not told so.
        delete::preconditions(scope, name, &pod, options)?;
        let revision = meta::resource_version(&pod).parse().unwrap_or_default();
        set_condition(
            &mut pod,
            json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
                "message": "Eviction API: evicting", "lastProbeTime": null}),
        );
        if let Some(written) = registry.put(scope.resource, scope.namespace, name, &pod, revision).await? {
            if let Some(wanted) = &mut options.resource_version {
                *wanted = written.to_string();
            }
            return Ok(());
        }
    }
    Ok(())
}
