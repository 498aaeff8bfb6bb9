//! What is kept of a Service.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use sampan_network::{Protocol, TrafficPolicy};

/// Upstream's default for `sessionAffinityConfig.clientIP.timeoutSeconds`: three hours.
const DEFAULT_AFFINITY: u64 = 10_800;
/// Services with this label are somebody else's.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";

/// A Service.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ServiceSummary {
    /// Its own addresses; none when it is headless.
    pub(crate) cluster_ips: Vec<IpAddr>,
    pub(crate) headless: bool,
    /// The name it stands for, in lower case without the final dot.
    pub(crate) external_name: Option<String>,
    /// `externalIPs` and the addresses of a load balancer.
    pub(crate) external_ips: Vec<Ipv4Addr>,
    pub(crate) ports: Vec<ServicePortSummary>,
    pub(crate) internal_policy: TrafficPolicy,
    pub(crate) external_policy: TrafficPolicy,
    pub(crate) affinity: Option<Duration>,
    /// Whether another proxy takes care of it; it has names all the same.
    pub(crate) proxied_by_others: bool,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServicePortSummary {
    /// Empty when it has none.
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    pub(crate) node_port: Option<u16>,
}

impl ServiceSummary {
    pub(crate) fn read(service: &Service) -> Self {
        let Some(spec) = &service.spec else { return Self::default() };
        if spec.type_.as_deref() == Some("ExternalName") {
            let name = spec.external_name.as_deref().unwrap_or_default();
            let external_name =
                Some(name.trim_end_matches('.').to_lowercase()).filter(|name| !name.is_empty());
            return Self { external_name, ..Self::default() };
        }
        let ips = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        let mut cluster_ips: Vec<IpAddr> = ips.filter_map(|ip| ip.parse().ok()).collect();
        cluster_ips.sort_unstable();
        cluster_ips.dedup();
        let labels = service.metadata.labels.iter().flatten();
        Self {
            headless: spec.cluster_ip.as_deref() == Some("None"),
            cluster_ips,
            external_name: None,
            external_ips: external_ips(service, spec),
            ports: ports(spec),
            internal_policy: policy(spec.internal_traffic_policy.as_deref()),
            external_policy: policy(spec.external_traffic_policy.as_deref()),
            affinity: affinity(spec),
            proxied_by_others: labels.into_iter().any(|(name, _)| name == OTHER_PROXY),
        }
    }
}

fn external_ips(service: &Service, spec: &ServiceSpec) -> Vec<Ipv4Addr> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    // With the mode `Proxy` packets come with the node's address.
    let direct = ingress.filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
    let direct = direct.filter_map(|ingress| ingress.ip.as_ref());
    let mut ips: Vec<Ipv4Addr> =
        spec.external_ips.iter().flatten().chain(direct).filter_map(|ip| ip.parse().ok()).collect();
    ips.sort_unstable();
    ips.dedup();
    ips
}

fn ports(spec: &ServiceSpec) -> Vec<ServicePortSummary> {
    let number = |port: i32| u16::try_from(port).ok().filter(|port| *port != 0);
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        Some(ServicePortSummary {
            name: port.name.clone().unwrap_or_default(),
            protocol: protocol(port.protocol.as_deref())?,
            port: number(port.port)?,
            node_port: port.node_port.and_then(number),
        })
    });
    ports.collect()
}

/// TCP when nothing is said; none for what the kernel does not translate.
pub(super) fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("" | "TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

fn policy(name: Option<&str>) -> TrafficPolicy {
    if name == Some("Local") { TrafficPolicy::Local } else { TrafficPolicy::Cluster }
}

fn affinity(spec: &ServiceSpec) -> Option<Duration> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|config| config.timeout_seconds);
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(DEFAULT_AFFINITY);
    Some(Duration::from_secs(seconds).min(sampan_network::LONGEST_AFFINITY))
}
