//! AlwaysPullImages (off by default): every image is pulled with the pod's own credentials (IMG-50..52).

use async_trait::async_trait;
use sampan_api::{FieldError, Status, field_error, meta};
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

pub(super) struct AlwaysPullImages;

#[async_trait]
impl Plugin for AlwaysPullImages {
    fn name(&self) -> &'static str {
        "AlwaysPullImages"
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if !concerns(attributes) {
            return Ok(());
        }
        let Some(spec) = attributes.object.get_mut("spec").and_then(Value::as_object_mut) else {
            return Ok(());
        };
        for list in LISTS {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                meta::object_mut(container).insert("imagePullPolicy".into(), json!("Always"));
            }
        }
        for volume in spec.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(image) = volume.get_mut("image").and_then(Value::as_object_mut) {
                image.insert("pullPolicy".into(), json!("Always"));
            }
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        if !concerns(attributes) {
            return Ok(());
        }
        let mut errors = Vec::new();
        let mut check = |field: String, policy: &str| {
            if policy != "Always" {
                errors.push(FieldError::not_supported(field, policy, &["Always"]));
            }
        };
        for list in LISTS {
            for (index, container) in meta::items(&attributes.object["spec"], list).iter().enumerate() {
                check(
                    format!("spec.{list}[{index}].imagePullPolicy"),
                    meta::str_of(container, "imagePullPolicy"),
                );
            }
        }
        for (index, volume) in meta::list(&attributes.object, "/spec/volumes").iter().enumerate() {
            if let Some(image) = volume.get("image") {
                check(format!("spec.volumes[{index}].image.pullPolicy"), meta::str_of(image, "pullPolicy"));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(attributes.forbidden(field_error::aggregate(&errors))) }
    }
}

/// Pods, on create and on updates that bring in an image which was not there.
fn concerns(attributes: &Attributes<'_>) -> bool {
    if !attributes.is("pods") {
        return false;
    }
    match attributes.operation {
        Operation::Create => true,
        Operation::Delete => false,
        Operation::Update => {
            let before = attributes.old.map(images).unwrap_or_default();
            images(&attributes.object).iter().any(|image| !before.contains(image))
        }
    }
}

fn images(pod: &Value) -> Vec<&str> {
    let spec = &pod["spec"];
    let containers = LISTS.iter().flat_map(|list| meta::items(spec, list)).map(|c| meta::str_of(c, "image"));
    let volumes = meta::items(spec, "volumes").iter().filter_map(|volume| volume.get("image"));
    containers.chain(volumes.map(|image| meta::str_of(image, "reference"))).collect()
}
