//! `scale`: how many replicas a workload wants and has, in one shape for all kinds (autoscaling/v1 Scale).

use http::Request;
use sampan_api::selector::LabelSelector;
use sampan_api::{FieldError, Resource, Status, meta};
use serde_json::{Value, json};

use crate::handlers::{Patch, body, decode};
use crate::negotiate::Accepted;
use crate::registry::{Scope, update};
use crate::respond::{self, Body, Response};

/// Answers the Scale of a workload.
pub(super) async fn get(scope: &Scope<'_>) -> Result<Response, Status> {
    let context = scope.context;
    let accepted = Accepted::negotiate(&context.headers, &context.query, false)?;
    let name = &context.info.name;
    let found = scope.server.registry.get(scope.resource, scope.namespace, name).await?;
    let found = found.ok_or_else(|| scope.not_found(name))?;
    respond::value(context, &accepted, 200, &scale(scope.resource, &found))
}

/// Puts or patches the Scale: the workload's `spec.replicas`.
pub(super) async fn write(scope: &Scope<'_>, request: Request<Body>) -> Result<Response, Status> {
    let context = scope.context;
    let accepted = Accepted::negotiate(&context.headers, &context.query, false)?;
    let name = context.info.name.clone();
    let is_patch = context.info.verb == "patch";
    let bytes = body::read(request).await?;
    let patch = if is_patch { Some(Patch::read(context, &bytes)?) } else { None };
    let put: Value = match (&patch, is_patch) {
        (None, false) => decode::value(context, &bytes)?,
        _ => Value::Null,
    };
    let change = |current: Option<&Value>| {
        let current = current.ok_or_else(|| scope.not_found(&name))?;
        let wanted = match &patch {
            Some(patch) => patch.apply(scope.resource, &scale(scope.resource, current))?,
            None => put.clone(),
        };
        if !meta::name(&wanted).is_empty() && meta::name(&wanted) != name {
            return Err(Status::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({name})",
                meta::name(&wanted)
            )));
        }
        let replicas = match &wanted["spec"]["replicas"] {
            Value::Null => 0,
            value => value.as_i64().ok_or_else(|| {
                Status::bad_request("Scale in version \"v1\" cannot be handled as a Scale: json: cannot unmarshal into Go struct field ScaleSpec.spec.replicas of type int32")
            })?,
        };
        if replicas < 0 {
            let error = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
            return Err(Status::invalid("autoscaling", "Scale", &name, &[error]));
        }
        let mut object = current.clone();
        let version = meta::resource_version(&wanted);
        let insists = patch.is_none() || version != meta::resource_version(current);
        meta::set_resource_version(&mut object, if insists { version } else { "" });
        meta::object_mut(&mut object["spec"]).insert("replicas".into(), json!(replicas));
        Ok(object)
    };
    // To the strategy this is a write of the object itself.
    let whole = Scope { subresource: "", ..*scope };
    let updated = update::update(&whole, &name, false, &change).await?;
    respond::value(context, &accepted, 200, &scale(scope.resource, &updated.object))
}

fn scale(resource: &Resource, object: &Value) -> Value {
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    let replicas = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
    let selector = match (resource.plural, object.pointer("/spec/selector")) {
        ("replicationcontrollers", Some(Value::Object(labels))) => pairs(labels),
        (_, selector) => text(selector),
    };
    let mut status = json!({"replicas": replicas("/status/replicas")});
    if !selector.is_empty() {
        status["selector"] = json!(selector);
    }
    let mut spec = json!({});
    let wanted = replicas("/spec/replicas");
    if wanted != 0 {
        spec["replicas"] = json!(wanted);
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

fn pairs(labels: &serde_json::Map<String, Value>) -> String {
    let pairs: Vec<_> =
        labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    pairs.join(",")
}

/// A label selector in the form of queries.
fn text(selector: Option<&Value>) -> String {
    let Some(selector) = selector.filter(|selector| LabelSelector::from_object(Some(selector)).is_ok())
    else {
        return String::new();
    };
    let mut terms = Vec::new();
    if let Some(labels) = selector["matchLabels"].as_object()
        && !labels.is_empty()
    {
        terms.push(pairs(labels));
    }
    for expression in meta::items(selector, "matchExpressions") {
        let key = meta::str_of(expression, "key");
        let mut values: Vec<&str> =
            meta::items(expression, "values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        terms.push(match meta::str_of(expression, "operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    terms.join(",")
}
