//! EndpointSlices: at most a hundred endpoints each, all of the same address family and ports.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use sampan_api::meta::list;
use serde_json::{Value, json};

use super::address::{hostname, labels, ports, publishes_not_ready, target};
use crate::kinds::{self, or_gone};
use crate::pods::PodSummary;

/// How many endpoints a slice has at most.
pub(super) const LARGEST: usize = 100;
const MANAGER: &str = "endpointslice-controller.k8s.io";
/// The label that says whose work a slice is.
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// Writes the slices of a Service.
pub(super) async fn sync(
    client: &Client,
    service: &DynamicObject,
    pods: &[Arc<PodSummary>],
) -> Result<(), kube::Error> {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let own = [("kubernetes.io/service-name", name), (MANAGED_BY, MANAGER)];
    let set = SliceSet {
        namespace: service.metadata.namespace.as_deref().unwrap_or_default(),
        service: name,
        manager: MANAGER,
        labels: labels(service, &own),
        owner: owner(service),
    };
    set.write(client, slices(service, pods)).await
}

/// The slices that one manager keeps for one Service.
pub(super) struct SliceSet<'a> {
    pub(super) namespace: &'a str,
    pub(super) service: &'a str,
    pub(super) manager: &'a str,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) owner: OwnerReference,
}

impl SliceSet<'_> {
    /// Makes them what is wanted (`addressType`, `endpoints`, `ports`), changing as few as possible.
    pub(super) async fn write(&self, client: &Client, wanted: Vec<Value>) -> Result<(), kube::Error> {
        let resource = kinds::find("discovery.k8s.io", "endpointslices");
        let api = kinds::api::<DynamicObject>(client, resource, self.namespace);
        let selector = format!("kubernetes.io/service-name={},{MANAGED_BY}={}", self.service, self.manager);
        let mut existing = api.list(&ListParams::default().labels(&selector)).await?.items;
        for wanted in wanted {
            // The one with the most in common is rewritten; a slice's family cannot change.
            let same = |slice: &DynamicObject| slice.data["addressType"] == wanted["addressType"];
            let exact = |slice: &DynamicObject| same(slice) && slice.data["ports"] == wanted["ports"];
            let found = existing.iter().position(exact).or_else(|| existing.iter().position(same));
            match found.map(|at| existing.swap_remove(at)) {
                None => {
                    let mut slice = kinds::object(resource, self.namespace, "", wanted);
                    slice.metadata.name = None;
                    slice.metadata.generate_name = Some(format!("{}-", self.service));
                    slice.metadata.labels = Some(self.labels.clone());
                    slice.metadata.owner_references = Some(vec![self.owner.clone()]);
                    api.create(&PostParams::default(), &slice).await?;
                }
                Some(slice) => {
                    let unchanged =
                        ["endpoints", "ports"].iter().all(|field| slice.data[*field] == wanted[*field]);
                    if !unchanged || slice.metadata.labels.as_ref() != Some(&self.labels) {
                        let version = slice.metadata.resource_version;
                        let patch = json!({
                            "metadata": {"resourceVersion": version, "labels": self.labels},
                            "endpoints": wanted["endpoints"], "ports": wanted["ports"],
                        });
                        let name = slice.metadata.name.as_deref().unwrap_or_default();
                        or_gone(api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
                    }
                }
            }
        }
        for slice in existing {
            let name = slice.metadata.name.as_deref().unwrap_or_default();
            or_gone(api.delete(name, &DeleteParams::default()).await)?;
        }
        Ok(())
    }
}

fn owner(service: &DynamicObject) -> OwnerReference {
    OwnerReference {
        api_version: "v1".into(),
        kind: "Service".into(),
        name: service.metadata.name.clone().unwrap_or_default(),
        uid: service.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The slices as they should be: `addressType`, `endpoints`, `ports`. One that is empty stands for none.
fn slices(service: &DynamicObject, pods: &[Arc<PodSummary>]) -> Vec<Value> {
    let mut slices = Vec::new();
    let families: Vec<_> = list(&service.data, "/spec/ipFamilies").iter().filter_map(Value::as_str).collect();
    let families = if families.is_empty() { vec!["IPv4"] } else { families };
    for family in families {
        // By the ports' text, which is as good as the ports.
        let mut groups: BTreeMap<String, (Vec<Value>, Vec<Value>)> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| !pod.ended) {
            let Some(ip) = pod.ips.iter().find(|ip| ip.contains(':') == (family == "IPv6")) else { continue };
            let ports = ports(service, pod);
            let group = groups.entry(json!(ports).to_string()).or_insert_with(|| (ports, Vec::new()));
            group.1.push(endpoint(service, pod, ip));
        }
        if groups.is_empty() {
            slices.push(json!({"addressType": family, "endpoints": [], "ports": []}));
        }
        for (ports, endpoints) in groups.into_values() {
            for endpoints in endpoints.chunks(LARGEST) {
                slices.push(json!({"addressType": family, "endpoints": endpoints, "ports": ports}));
            }
        }
    }
    slices
}

fn endpoint(service: &DynamicObject, pod: &PodSummary, ip: &str) -> Value {
    let mut endpoint = json!({
        "addresses": [ip],
        "conditions": {
            "ready": publishes_not_ready(service) || (pod.ready && !pod.deleting),
            "serving": pod.ready,
            "terminating": pod.deleting,
        },
        "targetRef": target(pod),
    });
    if !pod.node.is_empty() {
        endpoint["nodeName"] = pod.node.clone().into();
    }
    if let Some(hostname) = hostname(service, pod) {
        endpoint["hostname"] = hostname.into();
    }
    endpoint
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    pub(in crate::endpoints) fn service(spec: Value) -> DynamicObject {
        let metadata = json!({"name": "web", "namespace": "default", "uid": "uid"});
        serde_json::from_value(
            json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}),
        )
        .unwrap()
    }

    pub(in crate::endpoints) fn pod(name: &str, ip: &str, ready: bool, port: i64) -> Arc<PodSummary> {
        Arc::new(PodSummary {
            namespace: "default".into(),
            name: name.into(),
            uid: format!("uid-{name}"),
            node: "n1".into(),
            ready,
            ips: vec![ip.into(), "fd00::1".into()],
            ports: vec![("http".into(), "TCP".into(), port)],
            ..PodSummary::default()
        })
    }

    #[test]
    fn pods_with_the_same_ports_share_a_slice() {
        let named = service(json!({"ports": [{"name": "web", "port": 80, "targetPort": "http"}]}));
        let pods = [
            pod("a", "10.0.0.1", true, 8080),
            pod("b", "10.0.0.2", false, 8080),
            pod("c", "10.0.0.3", true, 9),
        ];
        let made = slices(&named, &pods);
        assert_eq!(made.len(), 2);
        assert_eq!(made[0]["ports"], json!([{"name": "web", "port": 8080, "protocol": "TCP"}]));
        assert_eq!(
            made[0]["endpoints"][1],
            json!({
                "addresses": ["10.0.0.2"], "nodeName": "n1",
                "conditions": {"ready": false, "serving": false, "terminating": false},
                "targetRef": {"kind": "Pod", "namespace": "default", "name": "b", "uid": "uid-b"},
            })
        );
        assert_eq!(made[1]["endpoints"][0]["addresses"], json!(["10.0.0.3"]));
    }

    #[test]
    fn slices_are_cut_at_a_hundred_and_made_for_each_family() {
        let both = service(json!({"ports": [{"port": 80}], "ipFamilies": ["IPv4", "IPv6"]}));
        let pods: Vec<_> = (0..150).map(|number| pod(&number.to_string(), "10.0.0.1", true, 1)).collect();
        let sizes: Vec<_> = slices(&both, &pods)
            .iter()
            .map(|slice| (slice["addressType"].clone(), list(slice, "/endpoints").len()))
            .collect();
        assert_eq!(
            sizes,
            [("IPv4".into(), 100), ("IPv4".into(), 50), ("IPv6".into(), 100), ("IPv6".into(), 50)]
        );
        assert_eq!(slices(&both, &[]).len(), 2);
    }

    #[test]
    fn ending_pods_serve_but_are_not_ready() {
        let plain = service(json!({"ports": [{"port": 80, "targetPort": 8080}]}));
        let mut ending = (*pod("a", "10.0.0.1", true, 1)).clone();
        ending.deleting = true;
        let ended = PodSummary { ended: true, ..ending.clone() };
        let made = slices(&plain, &[Arc::new(ending), Arc::new(ended)]);
        assert_eq!(list(&made[0], "/endpoints").len(), 1);
        let conditions = &made[0]["endpoints"][0]["conditions"];
        assert_eq!(*conditions, json!({"ready": false, "serving": true, "terminating": true}));
    }
}
