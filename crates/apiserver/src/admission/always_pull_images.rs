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
        let errors = other_policies(&attributes.object);
        if errors.is_empty() { Ok(()) } else { Err(attributes.forbidden(field_error::aggregate(&errors))) }
    }
}

/// Every policy of a pod that is not `Always`.
fn other_policies(pod: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut check = |field: String, policy: &str| {
        if policy != "Always" {
            errors.push(FieldError::not_supported(field, policy, &["Always"]));
        }
    };
    for list in LISTS {
        for (index, container) in meta::items(&pod["spec"], list).iter().enumerate() {
            let policy = meta::str_of(container, "imagePullPolicy");
            check(format!("spec.{list}[{index}].imagePullPolicy"), policy);
        }
    }
    for (index, volume) in meta::list(pod, "/spec/volumes").iter().enumerate() {
        if let Some(image) = volume.get("image") {
            check(format!("spec.volumes[{index}].image.pullPolicy"), meta::str_of(image, "pullPolicy"));
        }
    }
    errors
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

#[cfg(test)]
mod tests {
    use super::*;

    /// By the API nobody sees it: what the chain changes first is right when it comes here. It is for a plugin that
    /// would change it back.
    #[test]
    fn img_51_other_policies_are_forbidden_by_field() {
        let said = |pod: &Value| {
            let why = field_error::aggregate(&other_policies(pod));
            Status::forbidden("", "pods", "123", &why).message
        };
        let container = |policy: &str| json!({"name": "c", "image": "i", "imagePullPolicy": policy});
        let mut pod = json!({"spec": {"containers": [container("Always"), container("Never")]}});
        assert_eq!(
            said(&pod),
            r#"pods "123" is forbidden: spec.containers[1].imagePullPolicy: Unsupported value: "Never": supported values: "Always""#
        );
        pod["spec"]["initContainers"] = json!([container("IfNotPresent")]);
        pod["spec"]["volumes"] =
            json!([{"name": "v", "emptyDir": {}}, {"name": "i", "image": {"pullPolicy": "Never"}}]);
        assert_eq!(
            said(&pod),
            r#"pods "123" is forbidden: [spec.initContainers[0].imagePullPolicy: Unsupported value: "IfNotPresent": supported values: "Always", spec.containers[1].imagePullPolicy: Unsupported value: "Never": supported values: "Always", spec.volumes[1].image.pullPolicy: Unsupported value: "Never": supported values: "Always"]"#
        );
        pod["spec"] = json!({"containers": [container("Always")]});
        assert!(other_policies(&pod).is_empty());
    }
}
