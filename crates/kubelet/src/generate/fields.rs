//! The downward API: pod fields (ENV-18, ENV-24) and resource fields (ENV-21, ENV-23) as text.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use sampan_api::field_error::go_quote;

use crate::pod_ref;
use crate::quantities;

/// The addresses that field references may show; known once the sandbox runs.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// The pod's addresses, the primary one first.
    pub pod_ips: Vec<String>,
    /// The node's addresses, the primary one first.
    pub host_ips: Vec<String>,
}

/// The value of a `fieldRef`.
///
/// # Errors
/// The text for the container's waiting message.
pub fn field(pod: &Pod, selector: &ObjectFieldSelector, addresses: &Addresses) -> Result<String, String> {
    if selector.api_version.as_deref().is_some_and(|version| version != "v1" && !version.is_empty()) {
        return Err("unsupported pod version".to_owned());
    }
    let path = selector.field_path.as_str();
    if let Some((map, key)) = subscript(path) {
        let entries = match map {
            "metadata.labels" => pod.metadata.labels.as_ref(),
            "metadata.annotations" => pod.metadata.annotations.as_ref(),
            _ => return Err(format!("fieldPath {path:?} does not support subscript")),
        };
        return Ok(entries.and_then(|entries| entries.get(key)).cloned().unwrap_or_default());
    }
    let first = |list: &[String]| list.first().cloned().unwrap_or_default();
    Ok(match path {
        "metadata.name" => pod_ref::name(pod).to_owned(),
        "metadata.namespace" => pod_ref::namespace(pod).to_owned(),
        "metadata.uid" => pod_ref::uid(pod).to_owned(),
        "metadata.labels" => format_map(pod.metadata.labels.as_ref()),
        "metadata.annotations" => format_map(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => pod_ref::spec(pod).node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => pod_ref::spec(pod).service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => first(&addresses.host_ips),
        "status.hostIPs" => addresses.host_ips.join(","),
        "status.podIP" => first(&addresses.pod_ips),
        "status.podIPs" => addresses.pod_ips.join(","),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `metadata.labels['key']` as (`metadata.labels`, `key`).
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// Sorted `key="value"` lines with Go's quoting, no newline at the end (ENV-24).
#[must_use]
pub fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    map.into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", go_quote(value)))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The value of a `resourceFieldRef`; `own` is the container that asks.
///
/// # Errors
/// The text for the container's waiting message (ENV-27).
pub fn resource(
    pod: &Pod,
    selector: &ResourceFieldSelector,
    own: Option<&str>,
    allocatable: &BTreeMap<String, Quantity>,
) -> Result<String, String> {
    let name = selector.container_name.as_deref().filter(|name| !name.is_empty()).or(own).unwrap_or_default();
    let container = pod_ref::containers(pod)
        .iter()
        .chain(pod_ref::init_containers(pod))
        .find(|container| container.name == name)
        .ok_or_else(|| format!("container {name} not found"))?;
    let (kind, resource) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource : {}", selector.resource))?;
    let quantity = match kind {
        "limits" => limit(pod, container, resource, allocatable),
        "requests" => request(container, resource),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let divisor = selector.divisor.as_ref().map(|divisor| divisor.0.as_str());
    quantities::divide(&quantity, divisor)
        .map(|value| value.to_string())
        .ok_or_else(|| format!("unreadable quantity {quantity:?} of {}", selector.resource))
}

fn limit(
    pod: &Pod,
    container: &Container,
    resource: &str,
    allocatable: &BTreeMap<String, Quantity>,
) -> String {
    let of = |list: Option<&BTreeMap<String, Quantity>>| {
        list.and_then(|list| list.get(resource))
            .filter(|quantity| quantities::nanos(&quantity.0) != Some(0))
            .cloned()
    };
    of(container.resources.as_ref().and_then(|resources| resources.limits.as_ref()))
        .or_else(|| of(pod_ref::spec(pod).resources.as_ref().and_then(|resources| resources.limits.as_ref())))
        .or_else(|| of(Some(allocatable)))
        .map_or_else(|| "0".to_owned(), |quantity| quantity.0)
}

fn request(container: &Container, resource: &str) -> String {
    container
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.as_ref())
        .and_then(|requests| requests.get(resource))
        .map_or_else(|| "0".to_owned(), |quantity| quantity.0.clone())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"b": "2", "a": "say \"x\"\n"},
                         "annotations": {"x/y": "z"}},
            "spec": {"nodeName": "node", "serviceAccountName": "sa", "containers": [
                {"name": "c", "resources": {"limits": {"cpu": "1250m", "memory": "64Mi"}, "requests": {"cpu": "250m"}}},
                {"name": "d"}]}
        }))
        .unwrap()
    }

    fn selector(path: &str) -> ObjectFieldSelector {
        ObjectFieldSelector { api_version: Some("v1".into()), field_path: path.into() }
    }

    #[test]
    fn env_18_pod_fields() {
        let addresses =
            Addresses { pod_ips: vec!["10.0.0.2".into(), "fd::2".into()], host_ips: vec!["10.9.9.9".into()] };
        for (path, expected) in [
            ("metadata.name", "p"),
            ("metadata.namespace", "n"),
            ("metadata.uid", "u"),
            ("spec.nodeName", "node"),
            ("spec.serviceAccountName", "sa"),
            ("status.hostIP", "10.9.9.9"),
            ("status.hostIPs", "10.9.9.9"),
            ("status.podIP", "10.0.0.2"),
            ("status.podIPs", "10.0.0.2,fd::2"),
            ("metadata.labels['b']", "2"),
            ("metadata.annotations['x/y']", "z"),
            ("metadata.labels['nope']", ""),
            ("metadata.labels", "a=\"say \\\"x\\\"\\n\"\nb=\"2\""),
        ] {
            assert_eq!(field(&pod(), &selector(path), &addresses).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn env_19_other_versions_are_refused() {
        let other =
            ObjectFieldSelector { api_version: Some("v2".into()), field_path: "metadata.name".into() };
        assert_eq!(field(&pod(), &other, &Addresses::default()).unwrap_err(), "unsupported pod version");
    }

    #[test]
    fn env_21_23_27_resource_fields() {
        let allocatable = BTreeMap::from([("cpu".to_owned(), Quantity("8".into()))]);
        let ask = |container: &str, resource_name: &str, divisor: Option<&str>| {
            let selector = ResourceFieldSelector {
                container_name: None,
                resource: resource_name.into(),
                divisor: divisor.map(|divisor| Quantity(divisor.into())),
            };
            resource(&pod(), &selector, Some(container), &allocatable)
        };
        assert_eq!(ask("c", "limits.cpu", None).as_deref(), Ok("2"));
        assert_eq!(ask("c", "limits.cpu", Some("1m")).as_deref(), Ok("1250"));
        assert_eq!(ask("c", "limits.memory", None).as_deref(), Ok("67108864"));
        assert_eq!(ask("c", "requests.cpu", None).as_deref(), Ok("1"));
        assert_eq!(ask("d", "limits.cpu", None).as_deref(), Ok("8"));
        assert_eq!(ask("d", "requests.memory", None).as_deref(), Ok("0"));
        assert_eq!(ask("nope", "limits.cpu", None).unwrap_err(), "container nope not found");
    }
}
