//! Priority: resolves a pod's `priorityClassName`, and allows one default class.

use async_trait::async_trait;
use sampan_api::{Status, meta, scheme};
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};

pub(super) struct Priority;

#[async_trait]
impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if !attributes.is("pods") {
            return Ok(());
        }
        match attributes.operation {
            Operation::Create => resolve(attributes).await,
            // A PUT made from a manifest does not undo what admission resolved.
            Operation::Update => {
                let Some(old) = attributes.old else { return Ok(()) };
                for field in ["priority", "preemptionPolicy"] {
                    let absent = attributes.object["spec"].get(field).is_none_or(Value::is_null);
                    if absent && let Some(value) = old["spec"].get(field).cloned() {
                        meta::object_mut(&mut attributes.object["spec"]).insert(field.into(), value);
                    }
                }
                Ok(())
            }
            Operation::Delete => Ok(()),
        }
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let resource = attributes.resource();
        let concerns = resource.group == "scheduling.k8s.io"
            && resource.plural == "priorityclasses"
            && attributes.operation != Operation::Delete
            && attributes.object["globalDefault"] == true;
        if !concerns {
            return Ok(());
        }
        match default_class(attributes).await? {
            Some(other) if meta::name(&other) != meta::name(&attributes.object) => {
                Err(attributes.forbidden(format!(
                    "PriorityClass {} is already marked as default. Only one default can exist",
                    meta::name(&other)
                )))
            }
            _ => Ok(()),
        }
    }
}

async fn resolve(attributes: &mut Attributes<'_>) -> Result<(), Status> {
    let name = meta::str_at(&attributes.object, "/spec/priorityClassName").to_owned();
    let (class_name, class) = if name.is_empty() {
        let class = default_class(attributes).await?;
        (class.as_ref().map(|class| meta::name(class).to_owned()), class)
    } else {
        let class = match scheme::find("scheduling.k8s.io", "v1", "priorityclasses") {
            Some(resource) => attributes.scope.server.registry.get_fresh(resource, "", &name).await?,
            None => None,
        };
        let class = class
            .ok_or_else(|| attributes.forbidden(format!("no PriorityClass with name {name} was found")))?;
        (None, Some(class.value()))
    };
    let value = class.as_ref().and_then(|class| class["value"].as_i64()).unwrap_or_default();
    let policy = class
        .as_ref()
        .map(|class| meta::str_of(class, "preemptionPolicy"))
        .filter(|policy| !policy.is_empty());
    let policy = policy.unwrap_or("PreemptLowerPriority").to_owned();
    let given = attributes.object["spec"].get("priority").and_then(Value::as_i64);
    if given.is_some_and(|given| given != value) {
        return Err(attributes.forbidden(format!(
            "the integer value of priority ({}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name",
            given.unwrap_or_default()
        )));
    }
    let asked = meta::str_at(&attributes.object, "/spec/preemptionPolicy");
    if !asked.is_empty() && asked != policy {
        return Err(attributes.forbidden(format!(
            "the string value of PreemptionPolicy ({asked}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        )));
    }
    let spec = meta::object_mut(&mut attributes.object["spec"]);
    if let Some(name) = class_name {
        spec.insert("priorityClassName".into(), json!(name));
    }
    spec.insert("priority".into(), json!(value));
    spec.insert("preemptionPolicy".into(), json!(policy));
    Ok(())
}

/// The class for pods that name none: of several the one with the lowest value.
async fn default_class(attributes: &Attributes<'_>) -> Result<Option<Value>, Status> {
    let registry = &attributes.scope.server.registry;
    registry.catch_up().await?;
    let cache = scheme::find("scheduling.k8s.io", "v1", "priorityclasses")
        .and_then(|resource| registry.cache(resource));
    let Some(cache) = cache else { return Ok(None) };
    let classes = cache.snapshot("", 0).objects;
    let defaults = classes.iter().map(|class| class.value()).filter(|class| class["globalDefault"] == true);
    Ok(defaults.min_by_key(|class| class["value"].as_i64().unwrap_or_default()))
}
