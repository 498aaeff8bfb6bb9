//! Endpoints that somebody wrote for a Service without a selector, as EndpointSlices: proxies and DNS read only those.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::core::DynamicObject;
use sampan_api::meta::{items, list, str_of};
use serde_json::{Value, json};

use super::slice::{LARGEST, MANAGED_BY, SliceSet};
use crate::feed::Key;
use crate::kinds;

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// Endpoints with this label are not mirrored: their slices are made otherwise.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";

/// Writes the slices of the Endpoints that belong to a Service without a selector; without Endpoints there are none.
pub(super) async fn sync(client: &Client, key: &Key) -> Result<(), kube::Error> {
    let api = kinds::api::<DynamicObject>(client, kinds::find("", "endpoints"), &key.namespace);
    let endpoints = api.get_opt(&key.name).await?;
    let skipped = |endpoints: &DynamicObject| {
        let labels = endpoints.metadata.labels.iter().flatten();
        labels.into_iter().any(|(name, value)| name == SKIP && value == "true")
    };
    let endpoints = endpoints.filter(|endpoints| !skipped(endpoints));
    let mut labels = endpoints.as_ref().and_then(|found| found.metadata.labels.clone()).unwrap_or_default();
    labels.insert("kubernetes.io/service-name".into(), key.name.clone());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    let set = SliceSet {
        namespace: &key.namespace,
        service: &key.name,
        manager: MANAGER,
        labels,
        owner: OwnerReference {
            api_version: "v1".into(),
            kind: "Endpoints".into(),
            name: key.name.clone(),
            uid: endpoints.as_ref().and_then(|found| found.metadata.uid.clone()).unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        },
    };
    set.write(client, endpoints.map(|found| slices(&found.data)).unwrap_or_default()).await
}

/// One slice per subset and address family, cut at the usual size.
fn slices(endpoints: &Value) -> Vec<Value> {
    let mut slices = Vec::new();
    for subset in list(endpoints, "/subsets") {
        let ports = items(subset, "ports").iter().map(|port| {
            let protocol = Some(str_of(port, "protocol")).filter(|name| !name.is_empty()).unwrap_or("TCP");
            let mut made = json!({"name": str_of(port, "name"), "port": port["port"], "protocol": protocol});
            if let Some(application) = port.get("appProtocol") {
                made["appProtocol"] = application.clone();
            }
            made
        });
        let ports: Vec<Value> = ports.collect();
        let mut families: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for (field, ready) in [("addresses", true), ("notReadyAddresses", false)] {
            for address in items(subset, field) {
                let ip = str_of(address, "ip");
                let mut endpoint = json!({"addresses": [ip], "conditions": {"ready": ready}});
                for name in ["hostname", "nodeName", "targetRef"] {
                    if let Some(value) = address.get(name) {
                        endpoint[name] = value.clone();
                    }
                }
                families.entry(if ip.contains(':') { "IPv6" } else { "IPv4" }).or_default().push(endpoint);
            }
        }
        for (family, endpoints) in families {
            for endpoints in endpoints.chunks(LARGEST) {
                slices.push(json!({"addressType": family, "endpoints": endpoints, "ports": ports}));
            }
        }
    }
    slices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subset_is_a_slice_per_family() {
        let made = slices(&json!({"subsets": [{
            "addresses": [{"ip": "192.0.2.1", "hostname": "a"}, {"ip": "fd00::1"}],
            "notReadyAddresses": [{"ip": "192.0.2.2"}],
            "ports": [{"name": "http", "port": 80}],
        }]}));
        let ports = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
        assert_eq!(
            made,
            [
                json!({"addressType": "IPv4", "ports": ports, "endpoints": [
                    {"addresses": ["192.0.2.1"], "conditions": {"ready": true}, "hostname": "a"},
                    {"addresses": ["192.0.2.2"], "conditions": {"ready": false}},
                ]}),
                json!({"addressType": "IPv6", "ports": ports, "endpoints": [
                    {"addresses": ["fd00::1"], "conditions": {"ready": true}},
                ]}),
            ]
        );
        assert!(slices(&json!({})).is_empty());
    }
}
