//! `pods/binding`: the scheduler's decision. Once made it stands.

use http::Request;
use jiff::Timestamp;
use sampan_api::{FieldError, Status, meta};
use serde_json::{Value, json};

use crate::handlers::{body, decode};
use crate::negotiate::Accepted;
use crate::registry::Scope;
use crate::respond::{self, Body, Response};

/// How often the write is tried again when another one came between.
const ATTEMPTS: usize = 16;

/// Binds the pod in the path.
pub(super) async fn create(scope: &Scope<'_>, request: Request<Body>) -> Result<Response, Status> {
    let context = scope.context;
    let bytes = body::read(request).await?;
    let binding = decode::value(context, &bytes)?;
    let name = context.info.name.clone();
    if !meta::name(&binding).is_empty() && meta::name(&binding) != name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    bind(scope, &name, &binding).await
}

/// Binds a pod to the binding's target.
///
/// # Errors
/// 409 when the pod is bound already or going away, 422 for a target that is no node.
pub(crate) async fn bind(scope: &Scope<'_>, name: &str, binding: &Value) -> Result<Response, Status> {
    let context = scope.context;
    let accepted = Accepted::negotiate(&context.headers, &context.query, false)?;
    let mut errors = Vec::new();
    let kind = meta::str_at(binding, "/target/kind");
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported("target.kind", kind, &["Node", "<empty>"]));
    }
    let node = meta::str_at(binding, "/target/name");
    if node.is_empty() {
        errors.push(FieldError::required("target.name", ""));
    }
    if !errors.is_empty() {
        return Err(Status::invalid("", "Binding", name, &errors));
    }
    let registry = &scope.server.registry;
    let pods = sampan_api::scheme::find("", "v1", "pods").ok_or_else(Status::path_not_found)?;
    for _ in 0..ATTEMPTS {
        let pod = registry.get(pods, scope.namespace, name).await?;
        let mut pod = pod.ok_or_else(|| Status::not_found("", "pods", name))?;
        let conflict = |why: String| Status::conflict("", "pods/binding", name, &why);
        let uid = meta::uid(binding);
        if !uid.is_empty() && uid != meta::uid(&pod) {
            return Err(conflict(format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                meta::uid(&pod)
            )));
        }
        if meta::is_deleting(&pod) {
            return Err(conflict(format!("pod {name} is being deleted, cannot be assigned to a host")));
        }
        let bound = meta::str_at(&pod, "/spec/nodeName");
        if !bound.is_empty() {
            return Err(conflict(format!("pod {name} is already assigned to node {bound:?}")));
        }
        if !meta::list(&pod, "/spec/schedulingGates").is_empty() {
            return Err(conflict(format!("pod {name} has non-empty .spec.schedulingGates")));
        }
        let revision = meta::resource_version(&pod).parse().unwrap_or_default();
        meta::object_mut(&mut pod["spec"]).insert("nodeName".into(), json!(node));
        for (key, value) in meta::annotations(binding).into_iter().flatten() {
            meta::set_annotation(&mut pod, key, value.as_str().unwrap_or_default());
        }
        scheduled(&mut pod);
        if scope.dry_run || registry.put(pods, scope.namespace, name, &pod, revision).await?.is_some() {
            return respond::value(context, &accepted, 201, &Status::success(201).to_value());
        }
    }
    Err(Status::object_modified("", "pods", name))
}

/// Sets the condition PodScheduled.
fn scheduled(pod: &mut Value) {
    set_condition(pod, json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null}));
}

/// Sets a condition of a pod; its transition time moves when its status does.
pub(super) fn set_condition(pod: &mut Value, mut condition: Value) {
    let kind = meta::str_of(&condition, "type").to_owned();
    let before = meta::condition(pod, &kind);
    let same = before.is_some_and(|before| before["status"] == condition["status"]);
    condition["lastTransitionTime"] = match before {
        Some(before) if same => before["lastTransitionTime"].clone(),
        _ => json!(meta::format_time(Timestamp::now())),
    };
    let status = meta::object_mut(meta::object_mut(pod).entry("status").or_insert(Value::Null));
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    if let Some(conditions) = conditions.as_array_mut() {
        match conditions.iter_mut().find(|have| meta::str_of(have, "type") == kind) {
            Some(have) => *have = condition,
            None => conditions.push(condition),
        }
    }
}
