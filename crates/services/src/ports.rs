//! From a Service and its slices to what the proxy does.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddrV4},
};

use sampan_network::ServicePort;

use crate::view::{EndpointSummary, ServiceKey, ServicePortSummary, ServiceSummary, SliceSummary};

/// The ports of a Service that has an address of its own.
pub(crate) fn ports(
    key: &ServiceKey,
    service: &ServiceSummary,
    slices: &[&SliceSummary],
    node: &str,
) -> Vec<ServicePort> {
    let cluster_ips: Vec<_> = service.cluster_ips.iter().filter_map(v4).collect();
    if cluster_ips.is_empty() || service.proxied_by_others {
        return Vec::new();
    }
    let one = |port: &ServicePortSummary| {
        let here = |endpoint: &EndpointSummary| endpoint.node.as_deref() == Some(node);
        ServicePort {
            name: format!("{key}/{}/{}", port.protocol.to_string().to_lowercase(), port.name),
            protocol: port.protocol,
            port: port.port,
            cluster_ips: cluster_ips.clone(),
            external_ips: service.external_ips.clone(),
            node_port: port.node_port,
            internal_policy: service.internal_policy,
            external_policy: service.external_policy,
            affinity: service.affinity,
            endpoints: usable(slices, port, |_| true),
            local_endpoints: usable(slices, port, here),
        }
    };
    service.ports.iter().map(one).collect()
}

/// The endpoints that are ready; without any, those that still answer while they end.
fn usable(
    slices: &[&SliceSummary],
    port: &ServicePortSummary,
    wanted: impl Fn(&EndpointSummary) -> bool,
) -> Vec<SocketAddrV4> {
    let (mut ready, mut ending) = (BTreeSet::new(), BTreeSet::new());
    for slice in slices {
        let same = |(name, protocol, _): &&(String, _, u16)| *name == port.name && *protocol == port.protocol;
        let Some((_, _, number)) = slice.ports.iter().find(same) else { continue };
        for endpoint in slice.endpoints.iter().filter(|endpoint| wanted(endpoint)) {
            let Some(ip) = v4(&endpoint.address) else { continue };
            let address = SocketAddrV4::new(ip, *number);
            if endpoint.ready {
                ready.insert(address);
            } else if endpoint.serves_while_terminating {
                ending.insert(address);
            }
        }
    }
    if ready.is_empty() { ending.into_iter().collect() } else { ready.into_iter().collect() }
}

fn v4(address: &IpAddr) -> Option<std::net::Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::serde_json::json;
    use sampan_network::{Protocol, TrafficPolicy};

    use super::*;
    use crate::view::View;

    fn view(service: serde_json::Value, slice: serde_json::Value) -> Vec<ServicePort> {
        let metadata = json!({"name": "web", "namespace": "ns"});
        let mut view = View::default();
        let service = json!({"metadata": metadata, "spec": service});
        let key = view.set_service(&serde_json::from_value(service).unwrap()).unwrap();
        let mut object = slice;
        object["metadata"] =
            json!({"name": "web-1", "namespace": "ns", "labels": {"kubernetes.io/service-name": "web"}});
        object["addressType"] = "IPv4".into();
        view.set_slice(&serde_json::from_value(object).unwrap());
        ports(&key, view.service(&key).unwrap(), &view.slices(&key), "n1")
    }

    fn at(text: &str) -> SocketAddrV4 {
        text.parse().unwrap()
    }

    #[test]
    fn ports_meet_by_name_and_endpoints_by_condition() {
        let service = json!({
            "clusterIP": "10.43.0.7", "clusterIPs": ["10.43.0.7", "fd00::7"], "externalIPs": ["192.0.2.1"],
            "type": "NodePort", "externalTrafficPolicy": "Local", "sessionAffinity": "ClientIP",
            "ports": [{"name": "http", "port": 80, "nodePort": 30080}, {"name": "dns", "port": 53, "protocol": "UDP"}],
        });
        let slice = json!({
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 5353, "protocol": "UDP"}],
            "endpoints": [
                {"addresses": ["10.42.0.2"], "nodeName": "n1"},
                {"addresses": ["10.42.0.3"], "nodeName": "n2", "conditions": {"ready": true}},
                {"addresses": ["10.42.0.4"], "nodeName": "n1", "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["10.42.0.5"], "conditions": {"ready": false}},
            ],
        });
        let made = view(service, slice);
        assert_eq!(made.len(), 2);
        let http = &made[0];
        assert_eq!((http.name.as_str(), http.port, http.node_port), ("ns/web/tcp/http", 80, Some(30_080)));
        assert_eq!(http.cluster_ips, ["10.43.0.7".parse::<std::net::Ipv4Addr>().unwrap()]);
        assert_eq!(http.endpoints, [at("10.42.0.2:8080"), at("10.42.0.3:8080")]);
        assert_eq!(http.local_endpoints, [at("10.42.0.2:8080")]);
        assert_eq!(
            (http.internal_policy, http.external_policy),
            (TrafficPolicy::Cluster, TrafficPolicy::Local)
        );
        assert_eq!(http.affinity.unwrap().as_secs(), 10_800);
        assert_eq!((made[1].protocol, made[1].node_port), (Protocol::Udp, None));
        assert_eq!(made[1].endpoints[0].port(), 5353);
    }

    #[test]
    fn what_still_answers_is_used_when_nothing_else_is_there() {
        let slice = json!({"ports": [{"name": "", "port": 1, "protocol": "TCP"}], "endpoints": [
            {"addresses": ["10.42.0.4"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.42.0.5"], "conditions": {"ready": false, "serving": false, "terminating": true}},
        ]});
        let made = view(json!({"clusterIP": "10.43.0.7", "ports": [{"port": 80}]}), slice.clone());
        assert_eq!(made[0].endpoints, [at("10.42.0.4:1")]);
        for spec in [
            json!({"clusterIP": "None", "ports": [{"port": 80}]}),
            json!({"type": "ExternalName", "externalName": "a.example", "ports": [{"port": 80}]}),
        ] {
            assert_eq!(view(spec, slice.clone()), []);
        }
    }
}
