//! Endpoints: the older kind, one object per Service.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use serde_json::{Value, json};

use super::address::{hostname, labels, ports, publishes_not_ready, target};
use crate::feed::Key;
use crate::kinds::{self, or_gone};
use crate::pods::PodSummary;

const MANAGED_BY: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");

/// Writes the Endpoints of a Service.
pub(super) async fn sync(
    client: &Client,
    service: &DynamicObject,
    pods: &[Arc<PodSummary>],
) -> Result<(), kube::Error> {
    let resource = kinds::find("", "endpoints");
    let key = Key::of(&service.metadata);
    let api = kinds::api::<DynamicObject>(client, resource, &key.namespace);
    let (labels, subsets) = (labels(service, &[MANAGED_BY]), subsets(service, pods));
    match api.get_opt(&key.name).await? {
        None => {
            let mut endpoints =
                kinds::object(resource, &key.namespace, &key.name, json!({"subsets": subsets}));
            endpoints.metadata.labels = Some(labels);
            api.create(&PostParams::default(), &endpoints).await?;
        }
        Some(found) => {
            let same = found.data.get("subsets").is_none_or(|found| *found == json!([]))
                && subsets.is_empty()
                || found.data["subsets"] == json!(subsets);
            if !same || found.metadata.labels.as_ref() != Some(&labels) {
                let version = found.metadata.resource_version;
                let metadata = json!({"resourceVersion": version, "labels": labels});
                let patch = Patch::Merge(json!({"metadata": metadata, "subsets": subsets}));
                or_gone(api.patch(&key.name, &PatchParams::default(), &patch).await)?;
            }
        }
    }
    Ok(())
}

/// Deletes the Endpoints of a Service that is gone, if they are ours.
pub(super) async fn delete(client: &Client, key: &Key) -> Result<(), kube::Error> {
    let api = kinds::api::<DynamicObject>(client, kinds::find("", "endpoints"), &key.namespace);
    let found = api.get_opt(&key.name).await?;
    let ours = |found: &DynamicObject| {
        let labels = found.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(MANAGED_BY.0)).is_some_and(|by| by == MANAGED_BY.1)
    };
    if found.as_ref().is_some_and(ours) {
        or_gone(api.delete(&key.name, &DeleteParams::default()).await)?;
    }
    Ok(())
}

/// The subsets: addresses that share their ports.
fn subsets(service: &DynamicObject, pods: &[Arc<PodSummary>]) -> Vec<Value> {
    let not_ready_too = publishes_not_ready(service);
    let mut groups: BTreeMap<String, (Vec<Value>, [Vec<Value>; 2])> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !pod.ended && (!pod.deleting || not_ready_too)) {
        let Some(ip) = pod.ips.first() else { continue };
        let mut ports = ports(service, pod);
        for port in &mut ports {
            if port["name"] == "" {
                port.as_object_mut().and_then(|port| port.remove("name"));
            }
        }
        let mut address = json!({"ip": ip, "targetRef": target(pod)});
        if !pod.node.is_empty() {
            address["nodeName"] = pod.node.clone().into();
        }
        if let Some(hostname) = hostname(service, pod) {
            address["hostname"] = hostname.into();
        }
        let group = groups.entry(json!(ports).to_string()).or_insert_with(|| (ports, Default::default()));
        group.1[usize::from(!(pod.ready || not_ready_too))].push(address);
    }
    let subset = |(ports, [ready, not_ready]): (Vec<Value>, [Vec<Value>; 2])| {
        let lists = [("addresses", ready), ("notReadyAddresses", not_ready), ("ports", ports)];
        let filled = lists.into_iter().filter(|(_, list)| !list.is_empty());
        Value::Object(filled.map(|(name, list)| (name.to_owned(), list.into())).collect())
    };
    groups.into_values().map(subset).collect()
}

#[cfg(test)]
mod tests {
    use super::super::slice::tests::{pod, service};
    use super::*;

    #[test]
    fn addresses_are_told_apart_by_readiness() {
        let plain = service(json!({"ports": [{"port": 80, "targetPort": 8080}]}));
        let made = subsets(&plain, &[pod("a", "10.0.0.1", true, 1), pod("b", "10.0.0.2", false, 1)]);
        assert_eq!(made.len(), 1);
        assert_eq!(made[0]["ports"], json!([{"port": 8080, "protocol": "TCP"}]));
        assert_eq!(made[0]["addresses"][0]["ip"], "10.0.0.1");
        assert_eq!(made[0]["notReadyAddresses"][0]["targetRef"]["name"], "b");
        assert!(subsets(&plain, &[]).is_empty());
    }
}
