//! From a Service and its slices to names: version 1.1.0 of the Kubernetes DNS specification, below the cluster's
//! domain (ENV-36).

use std::{collections::BTreeMap, net::IpAddr};

use sampan_dns::{Data, Records};

use crate::view::{EndpointSummary, ServiceKey, ServiceSummary, SliceSummary};

/// The records of a Service.
pub(crate) fn records(key: &ServiceKey, service: &ServiceSummary, slices: &[&SliceSummary]) -> Records {
    let base = format!("{}.{}.svc", key.name, key.namespace);
    let mut records = Records::default();
    if let Some(name) = &service.external_name {
        records.forward.push((base, Data::Alias(name.clone())));
    } else if service.headless {
        headless(&base, slices, &mut records);
    } else {
        for ip in &service.cluster_ips {
            records.forward.push((base.clone(), Data::Address(*ip)));
            records.reverse.push((*ip, base.clone()));
        }
        for port in
            service.ports.iter().filter(|port| !port.name.is_empty() && !service.cluster_ips.is_empty())
        {
            let name = port_name(&port.name, port.protocol, &base);
            records.forward.push((name, Data::Service { port: port.port, target: base.clone() }));
        }
    }
    records
}

/// A Service without an address: those of its ready endpoints.
fn headless(base: &str, slices: &[&SliceSummary], records: &mut Records) {
    // The same endpoint may be in two slices for a moment.
    let mut hosts: BTreeMap<(String, IpAddr), ()> = BTreeMap::new();
    let mut ports: BTreeMap<(String, String, u16), ()> = BTreeMap::new();
    for slice in slices {
        for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.ready) {
            let host = format!("{}.{base}", host_label(endpoint));
            hosts.insert((host.clone(), endpoint.address), ());
            for (name, protocol, number) in slice.ports.iter().filter(|(name, ..)| !name.is_empty()) {
                ports.insert((port_name(name, *protocol, base), host.clone(), *number), ());
            }
        }
    }
    for (host, address) in hosts.into_keys() {
        records.forward.push((base.to_owned(), Data::Address(address)));
        records.forward.push((host.clone(), Data::Address(address)));
        records.reverse.push((address, host));
    }
    for (name, target, port) in ports.into_keys() {
        records.forward.push((name, Data::Service { port, target }));
    }
}

/// The endpoint's own label: its hostname, or its address with dashes.
fn host_label(endpoint: &EndpointSummary) -> String {
    let dashed = || endpoint.address.to_string().replace(['.', ':'], "-");
    endpoint.hostname.as_ref().map_or_else(dashed, |name| name.to_lowercase())
}

fn port_name(port: &str, protocol: sampan_network::Protocol, base: &str) -> String {
    format!("_{}._{}.{base}", port.to_lowercase(), protocol.to_string().to_lowercase())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use sampan_network::Protocol;

    use super::*;
    use crate::view::ServicePortSummary;

    fn key() -> ServiceKey {
        ServiceKey { namespace: "ns".into(), name: "web".into() }
    }

    fn endpoint(address: &str, hostname: Option<&str>, ready: bool) -> EndpointSummary {
        EndpointSummary {
            address: address.parse().unwrap(),
            ready,
            serves_while_terminating: false,
            hostname: hostname.map(str::to_owned),
            node: None,
        }
    }

    fn text(records: &Records) -> Vec<String> {
        records.forward.iter().map(|(name, data)| format!("{name} {data:?}")).collect()
    }

    #[test]
    fn env_36_a_headless_service_has_its_ready_pods_and_their_hostnames() {
        let slice = SliceSummary {
            ports: vec![("http".into(), Protocol::Tcp, 8080), (String::new(), Protocol::Tcp, 1)],
            endpoints: vec![
                endpoint("10.42.0.2", Some("db-0"), true),
                endpoint("fd00::3", None, true),
                endpoint("10.42.0.4", Some("db-2"), false),
            ],
        };
        let service = ServiceSummary { headless: true, ..ServiceSummary::default() };
        let records = records(&key(), &service, &[&slice, &slice]);
        assert_eq!(
            text(&records),
            [
                "web.ns.svc Address(10.42.0.2)",
                "db-0.web.ns.svc Address(10.42.0.2)",
                "web.ns.svc Address(fd00::3)",
                "fd00--3.web.ns.svc Address(fd00::3)",
                r#"_http._tcp.web.ns.svc Service { port: 8080, target: "db-0.web.ns.svc" }"#,
                r#"_http._tcp.web.ns.svc Service { port: 8080, target: "fd00--3.web.ns.svc" }"#,
            ]
        );
        assert_eq!(records.reverse.len(), 2);
    }

    #[test]
    fn env_36_an_external_name_is_an_alias() {
        let service =
            ServiceSummary { external_name: Some("db.example.com".into()), ..ServiceSummary::default() };
        assert_eq!(text(&records(&key(), &service, &[])), [r#"web.ns.svc Alias("db.example.com")"#]);
    }

    proptest! {
        #[test]
        fn names_are_names_whatever_the_labels(
            name in "[a-z]([a-z0-9-]{0,61}[a-z0-9])?", port in "[a-z]([a-z0-9-]{0,13}[a-z0-9])?",
            hostname in prop::option::of("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"), address in any::<IpAddr>()
        ) {
            let key = ServiceKey { namespace: name.clone(), name };
            let ports = vec![ServicePortSummary { name: port.clone(), protocol: Protocol::Udp, port: 1, node_port: None }];
            let plain = ServiceSummary { cluster_ips: vec![address], ports, ..ServiceSummary::default() };
            let headless = ServiceSummary { headless: true, ..ServiceSummary::default() };
            let slice = SliceSummary {
                ports: vec![(port, Protocol::Tcp, 1)],
                endpoints: vec![endpoint(&address.to_string(), hostname.as_deref(), true)],
            };
            for service in [plain, headless] {
                let records = records(&key, &service, &[&slice]);
                prop_assert!(!records.forward.is_empty() && records.reverse.len() == 1);
                for (name, data) in &records.forward {
                    prop_assert!(name.split('.').all(|label| (1..=63).contains(&label.len())));
                    if let Data::Service { target, .. } = data {
                        prop_assert!(records.forward.iter().any(|(name, _)| name == target));
                    }
                }
            }
        }
    }
}
