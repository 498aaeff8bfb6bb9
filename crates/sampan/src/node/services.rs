//! Services on this node: the table that leads to their endpoints, their names, and the DNS server that pods ask.
//!
//! With the built-in network the table is the network's own. With CNI plugins or another runtime there is one for
//! Services only, and the host finds them over loopback.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
};

use anyhow::{Context, Result};
use sampan_dns::{Server, ServerConfig as DnsConfig, Upstreams, Zone};
use sampan_network::{
    Network, RuleTable, RuleTableConfig, ServiceRoute, add_service_route, remove_service_route,
};
use sampan_services::{ClusterDns, NodeAddresses, ServicesConfig};
use tokio_util::sync::CancellationToken;

use crate::config::{ClusterDns as ClusterDnsServer, NodeConfig};

/// The cluster's DNS has this address of the Services' range, as everywhere.
const DNS_ADDRESS: u32 = 10;
/// Whether bridged packets pass the rules of the host.
const BRIDGE_CALLS: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// Everything that Services need on this machine.
pub(super) struct ServiceNetwork {
    rules: Arc<RuleTable>,
    zone: Zone,
    /// The address of the cluster's DNS, whoever answers there.
    service: Option<Ipv4Addr>,
    nodes: NodeAddresses,
    /// Whether this machine's routes lead to the pods of other nodes: plugins do that themselves.
    routes: bool,
    dns: Option<(Server, ClusterDns)>,
    /// The table and the route are to be removed at the end: no pod will use them, and they are not the network's.
    own: Option<ServiceRoute>,
}

impl ServiceNetwork {
    /// Makes the table unless the network has one, and listens for DNS.
    pub(super) async fn make(config: &NodeConfig, network: Option<&Arc<Network>>) -> Result<Self> {
        let node = match config.node_ip {
            IpAddr::V4(ip) => ip,
            IpAddr::V6(_) => Ipv4Addr::LOCALHOST,
        };
        let (rules, own, listen) = match network {
            Some(network) => (network.rules().clone(), None, network.gateway()),
            None => {
                let bypass = fs::read_to_string(BRIDGE_CALLS).map_or(true, |value| value.trim() != "1");
                let table = RuleTableConfig {
                    name: config.bridge.clone(),
                    bridge: None,
                    pod_cidr: config.cluster_cidr,
                    service_cidr: config.service_cidr,
                    cluster_cidr: config.cluster_cidr,
                    pods_bypass_host: bypass,
                };
                let rules = RuleTable::open(table, BTreeMap::new()).await.context("the Services' rules")?;
                let route = ServiceRoute::over("lo", config.service_cidr, node);
                add_service_route(&route).await.context("the Services' route")?;
                (rules, Some(route).filter(|_| config.stop_pods), node)
            }
        };
        let service =
            (config.service_cidr.size() > DNS_ADDRESS + 1).then(|| config.service_cidr.nth(DNS_ADDRESS));
        let ranges =
            [config.service_cidr, config.cluster_cidr].map(|range| (range.network(), range.prefix()));
        let zone = Zone::new(&config.cluster_domain, service.map(IpAddr::V4), &ranges);
        zone.set_complete(false);
        let nodes = NodeAddresses::default();
        let dns = match (service, config.cluster_dns) {
            (None, _) => {
                tracing::warn!(range = %config.service_cidr, "too small for cluster DNS: pods use the node's servers");
                None
            }
            (Some(_), ClusterDnsServer::Elsewhere) => None,
            (Some(service), ClusterDnsServer::Here) => {
                let (pods, nodes) = (config.cluster_cidr, nodes.clone());
                let dns = DnsConfig {
                    address: listen.into(),
                    port: 0,
                    upstreams: Upstreams::ResolvConf("/etc/resolv.conf".into()),
                    own: vec![service.into()],
                    // Pods, other nodes, and this machine by whatever address.
                    is_client: Arc::new(move |ip| match ip {
                        IpAddr::V4(ip) => pods.contains(ip) || nodes.contains(ip) || is_own(ip),
                        IpAddr::V6(_) => false,
                    }),
                };
                let server = Server::bind(dns, zone.clone()).await.context("cluster DNS")?;
                let port = server.address().context("cluster DNS")?.port();
                let endpoint = SocketAddr::new(listen.into(), port);
                Some((server, ClusterDns { service, endpoint }))
            }
        };
        Ok(Self { rules, zone, service, nodes, routes: network.is_some(), dns, own })
    }

    /// The name server of pods.
    pub(super) fn cluster_dns(&self) -> Option<IpAddr> {
        self.service.map(IpAddr::V4)
    }

    /// Follows the Services and answers questions until `shutdown`. Rules stay: running pods use them.
    pub(super) async fn run(self, node_name: String, client: kube::Client, shutdown: CancellationToken) {
        let (server, cluster_dns) = self.dns.unzip();
        let answering = server.map(|server| tokio::spawn(server.run(shutdown.clone())));
        let config = ServicesConfig {
            client,
            node_name,
            rules: self.rules.clone(),
            zone: self.zone,
            cluster_dns,
            nodes: self.nodes,
            routes: self.routes,
        };
        sampan_services::run(config, shutdown).await;
        if let Some(answering) = answering {
            let _ = answering.await;
        }
        if let Some(route) = &self.own {
            let unruled = self.rules.remove().await;
            if let Err(error) = unruled.and(remove_service_route(route).await) {
                tracing::warn!(%error, "removing the Services' rules");
            }
        }
    }
}

/// Whether this machine has the address: only then can it be bound.
fn is_own(ip: Ipv4Addr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}
