//! The environment variables that make Services known to containers (ENV-30 to ENV-34).

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort};

/// The Services that a pod of `namespace` is told about: those of its namespace, unless links are switched
/// off, and always `kubernetes` of the namespace `default` (ENV-33, ENV-34).
pub fn visible<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    namespace: &str,
    enable_service_links: bool,
) -> Vec<&'a Service> {
    let mut by_name: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        if cluster_ip(service).is_none() {
            continue;
        }
        let service_namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let master = service_namespace == "default" && name == "kubernetes";
        if service_namespace == namespace && (enable_service_links || master) {
            by_name.insert(name, service);
        } else if master {
            by_name.entry(name).or_insert(service);
        }
    }
    by_name.into_values().collect()
}

/// The variables of `services`.
#[must_use]
pub fn variables(services: &[&Service]) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for service in services {
        let (Some(ip), Some(spec)) = (cluster_ip(service), service.spec.as_ref()) else { continue };
        let ports = spec.ports.as_deref().unwrap_or_default();
        let Some(first) = ports.first() else { continue };
        let prefix = variable_name(service.metadata.name.as_deref().unwrap_or_default());
        variables.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
        variables.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
        for port in ports {
            if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                variables
                    .insert(format!("{prefix}_SERVICE_PORT_{}", variable_name(name)), port.port.to_string());
            }
        }
        variables.insert(format!("{prefix}_PORT"), url(ip, first));
        for port in ports {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let name = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
            variables.insert(format!("{name}_PROTO"), protocol.to_lowercase());
            variables.insert(format!("{name}_PORT"), port.port.to_string());
            variables.insert(format!("{name}_ADDR"), ip.to_owned());
            variables.insert(name, url(ip, port));
        }
    }
    variables
}

fn cluster_ip(service: &Service) -> Option<&str> {
    let ip = service.spec.as_ref()?.cluster_ip.as_deref()?;
    (!ip.is_empty() && ip != "None").then_some(ip)
}

fn variable_name(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

fn url(ip: &str, port: &ServicePort) -> String {
    let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
    match ip.parse() {
        Ok(IpAddr::V6(ip)) => format!("{protocol}://[{ip}]:{}", port.port),
        _ => format!("{protocol}://{ip}:{}", port.port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ServiceSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    fn service(namespace: &str, name: &str, ip: &str, ports: &[(&str, i32, &str)]) -> Service {
        Service {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some(namespace.into()),
                ..Default::default()
            },
            spec: Some(ServiceSpec {
                cluster_ip: Some(ip.into()),
                ports: Some(
                    ports
                        .iter()
                        .map(|(name, port, protocol)| ServicePort {
                            name: (!name.is_empty()).then(|| (*name).to_owned()),
                            port: *port,
                            protocol: Some((*protocol).to_owned()),
                            ..Default::default()
                        })
                        .collect(),
                ),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn env_30_31_32_variables_of_a_service() {
        let one = service("ns", "super-duper", "1.2.3.4", &[("u-d-p", 8081, "UDP"), ("t", 8081, "TCP")]);
        let six = service("ns", "s6", "2001:db8::1", &[("", 80, "SCTP")]);
        let variables = variables(&[&one, &six]);
        let expected = [
            ("SUPER_DUPER_SERVICE_HOST", "1.2.3.4"),
            ("SUPER_DUPER_SERVICE_PORT", "8081"),
            ("SUPER_DUPER_SERVICE_PORT_U_D_P", "8081"),
            ("SUPER_DUPER_SERVICE_PORT_T", "8081"),
            ("SUPER_DUPER_PORT", "udp://1.2.3.4:8081"),
            ("SUPER_DUPER_PORT_8081_UDP", "udp://1.2.3.4:8081"),
            ("SUPER_DUPER_PORT_8081_UDP_PROTO", "udp"),
            ("SUPER_DUPER_PORT_8081_TCP_ADDR", "1.2.3.4"),
            ("S6_PORT_80_SCTP", "sctp://[2001:db8::1]:80"),
            ("S6_PORT_80_SCTP_ADDR", "2001:db8::1"),
        ];
        for (name, value) in expected {
            assert_eq!(variables.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert_eq!(variables.len(), (2 + 2 + 1 + 2 * 4) + (2 + 1 + 4));
    }

    #[test]
    fn env_33_34_which_services_are_visible() {
        let services = [
            service("default", "kubernetes", "10.0.0.1", &[("https", 443, "TCP")]),
            service("default", "other", "10.0.0.2", &[("", 80, "TCP")]),
            service("ns", "mine", "10.0.0.3", &[("", 80, "TCP")]),
            service("ns", "headless", "None", &[("", 80, "TCP")]),
        ];
        let names = |links| -> Vec<String> {
            visible(&services, "ns", links).iter().filter_map(|s| s.metadata.name.clone()).collect()
        };
        assert_eq!(names(true), ["kubernetes", "mine"]);
        assert_eq!(names(false), ["kubernetes"]);
        let mut with_own = services.to_vec();
        with_own.insert(0, service("ns", "kubernetes", "10.9.9.9", &[("", 1, "TCP")]));
        let chosen = visible(&with_own, "ns", true);
        assert_eq!(chosen[0].spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()), Some("10.9.9.9"));
    }
}
