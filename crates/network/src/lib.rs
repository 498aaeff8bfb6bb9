//! What connects a pod sandbox to the world: a bridge, an address, routes, masquerading, host ports and Services.
//!
//! The crate knows network namespaces, interfaces, addresses and nftables; it does not know pods, and of Services it
//! knows addresses and ports ([`ServicePort`]).
//! Everything goes over netlink, so nothing has to be installed on the machine. [`Network::setup`] is on the
//! hot path of a pod start (about 2 ms); [`Network::teardown`] may be repeated and never stops at the first
//! thing that is already gone.
//!
//! Kernel objects of one [`Network`], all named after its bridge so that several can live side by side:
//! the bridge itself, one `veth` pair per sandbox and the nftables table `ip <bridge>`.
//!
//! A sandbox has an address of 32 bits and only the gateway beside it: what goes to another sandbox passes the host's
//! rules, so that a Service's answers are translated back without `br_netfilter`, and with the client's own address.

mod bridge;
mod cidr;
mod cni;
mod conntrack;
mod error;
mod ipam;
mod kernel;
mod netlink;
mod nft;
mod route;
mod service;
mod table;
mod veth;

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::Arc,
};

use self::ipam::Ipam;
pub use self::{
    cidr::Ipv4Cidr,
    cni::{Cni, CniPod},
    error::Error,
    route::{
        NodeRoute, ServiceRoute, add_node_route, add_service_route, remove_node_route, remove_service_route,
    },
    service::{Protocol, ServicePort, TrafficPolicy},
    table::{LONGEST_AFFINITY, RuleTable, RuleTableConfig},
};

/// How a [`Network`] is made.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// The bridge's name: at most 15 bytes. Also the name of the nftables table.
    pub bridge: String,
    /// The range from which sandboxes get addresses; its first address is the bridge's (the gateway).
    pub pod_cidr: Ipv4Cidr,
    /// The range of all nodes' sandboxes: what goes there keeps its address.
    pub cluster_cidr: Ipv4Cidr,
    /// The range of the Services' addresses: the host finds them over the bridge.
    pub service_cidr: Ipv4Cidr,
    /// Where addresses given out and port mappings are remembered over a restart.
    pub state_dir: PathBuf,
    /// The largest packet in bytes; the kernel's default (1500) when `None`.
    pub mtu: Option<u32>,
}

/// A port of the host that leads to a port of the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PortMapping {
    /// Its protocol.
    pub protocol: Protocol,
    /// The port inside.
    pub container_port: u16,
    /// The port outside.
    pub host_port: u16,
    /// The host's address it is bound to; every local address when `None`.
    pub host_ip: Option<Ipv4Addr>,
}

/// A sandbox that wants a network.
#[derive(Clone, Debug)]
pub struct SandboxNetwork {
    /// The sandbox's id: the key of everything that is remembered for it.
    pub id: String,
    /// The file that its network namespace is bound to.
    pub netns: PathBuf,
    /// Its host ports.
    pub port_mappings: Vec<PortMapping>,
}

/// What a sandbox got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkStatus {
    /// Its addresses, the primary one first.
    pub ips: Vec<IpAddr>,
    /// The next hop of its default route.
    pub gateway: IpAddr,
}

/// The built-in network of one server.
pub struct Network {
    config: NetworkConfig,
    ipam: Ipam,
    rules: Arc<RuleTable>,
    /// The bridge's interface index, looked up again when the bridge was made anew.
    bridge_index: u32,
}

impl Network {
    /// Makes the bridge and the nftables table (or takes over what an earlier run left) and reads back which
    /// addresses are in use.
    ///
    /// # Errors
    /// When the kernel refuses (no `CAP_NET_ADMIN`, no bridge or nf_tables support) or the state directory
    /// cannot be used.
    pub async fn new(config: NetworkConfig) -> Result<Arc<Self>, Error> {
        let ipam = Ipam::open(config.state_dir.join("leases"), config.pod_cidr)?;
        kernel::enable_forwarding()?;
        let bridge_index = bridge::ensure(&config.bridge, config.pod_cidr, config.mtu).await?;
        kernel::route_loopback_over(&config.bridge)?;
        add_service_route(&ServiceRoute::over(
            &config.bridge,
            config.service_cidr,
            config.pod_cidr.gateway(),
        ))
        .await?;
        let ports = ipam.leases().into_iter().filter(|(_, lease)| !lease.ports.is_empty());
        let rules = RuleTable::open(
            RuleTableConfig {
                name: config.bridge.clone(),
                bridge: Some(config.bridge.clone()),
                pod_cidr: config.pod_cidr,
                cluster_cidr: config.cluster_cidr,
                service_cidr: config.service_cidr,
                pods_bypass_host: false,
            },
            ports.map(|(id, lease)| (id, (lease.ip, lease.ports))).collect(),
        );
        let rules = rules.await?;
        Ok(Arc::new(Self { config, ipam, rules, bridge_index }))
    }

    /// The table of rules, which Services are written to.
    pub fn rules(&self) -> &Arc<RuleTable> {
        &self.rules
    }

    /// Whether any sandbox has an address.
    pub fn is_used(&self) -> bool {
        !self.ipam.leases().is_empty()
    }

    /// The gateway that sandboxes see: the host's address on the bridge.
    pub fn gateway(&self) -> Ipv4Addr {
        self.config.pod_cidr.gateway()
    }

    /// The name of the bridge.
    pub fn bridge(&self) -> &str {
        &self.config.bridge
    }

    /// Gives a sandbox its loopback, `eth0`, address, default route and host ports. What was done is undone
    /// when a later step fails. A second call for the same sandbox keeps its address.
    ///
    /// # Errors
    /// When the range is used up, a host port is taken by another sandbox, or the kernel refuses.
    pub async fn setup(&self, sandbox: &SandboxNetwork) -> Result<NetworkStatus, Error> {
        let ip = self.ipam.allocate(&sandbox.id, &sandbox.port_mappings)?;
        let result = self.connect(sandbox, ip).await;
        if result.is_err() {
            let _ = self.teardown(&sandbox.id).await;
        }
        result
    }

    async fn connect(&self, sandbox: &SandboxNetwork, ip: Ipv4Addr) -> Result<NetworkStatus, Error> {
        let link = veth::Veth {
            netns: sandbox.netns.clone(),
            host_name: veth::host_name(&self.config.bridge, &sandbox.id),
            bridge_index: self.bridge_index,
            ip,
            cidr: self.config.pod_cidr,
            mtu: self.config.mtu,
        };
        link.create().await?;
        if !sandbox.port_mappings.is_empty() {
            self.rules.map_ports(&sandbox.id, ip, &sandbox.port_mappings).await?;
        }
        Ok(NetworkStatus { ips: vec![ip.into()], gateway: self.gateway().into() })
    }

    /// Takes everything away that [`setup`](Self::setup) gave. What is gone already is no error; a failure
    /// does not keep the rest from being done, and the first one is returned.
    ///
    /// # Errors
    /// When the kernel refuses to remove a link or a rule, or the lease cannot be deleted.
    pub async fn teardown(&self, id: &str) -> Result<(), Error> {
        let unmapped = self.rules.unmap_ports(id).await;
        let unlinked = bridge::delete_link(&veth::host_name(&self.config.bridge, id)).await;
        let released = self.ipam.release(id);
        unmapped.and(unlinked).and(released)
    }

    /// Tears down what belongs to sandboxes other than `living`: leftovers of an earlier run.
    ///
    /// # Errors
    /// The first failure; the others are tried all the same.
    pub async fn reconcile(&self, living: &HashSet<String>) -> Result<(), Error> {
        let mut first = Ok(());
        for (id, _) in self.ipam.leases() {
            if !living.contains(&id) {
                let done = self.teardown(&id).await;
                first = first.and(done);
            }
        }
        first
    }

    /// Removes the bridge and the nftables table. Only for a network without sandboxes: a server
    /// that ends without pods.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn destroy(&self) -> Result<(), Error> {
        let unruled = self.rules.remove().await;
        let unlinked = bridge::delete_link(&self.config.bridge).await;
        unruled.and(unlinked)
    }
}

impl PortMapping {
    /// Whether both would claim the same port of the same address.
    pub fn clashes_with(&self, other: &Self) -> bool {
        let same_ip = self.host_ip.is_none() || other.host_ip.is_none() || self.host_ip == other.host_ip;
        same_ip && self.protocol == other.protocol && self.host_port == other.host_port
    }
}
