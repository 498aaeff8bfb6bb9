//! The link between a sandbox and the bridge, made from inside the sandbox's namespace.
//!
//! Both ends are born where they belong (`eth0` in the sandbox, its peer on the bridge), which saves the
//! rename and the move that take most of the time otherwise.

use std::{fs::File, net::Ipv4Addr, os::fd::AsRawFd, path::PathBuf};

use rtnetlink::{
    Handle, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        link::{InfoData, InfoVeth},
        route::RouteScope,
    },
};
use sha2::{Digest, Sha256};

use crate::{Error, Ipv4Cidr, bridge, kernel};

/// The name of the sandbox's end.
const INSIDE: &str = "eth0";

/// A link to be made.
pub(crate) struct Veth {
    pub(crate) netns: PathBuf,
    pub(crate) host_name: String,
    pub(crate) bridge_index: u32,
    pub(crate) ip: Ipv4Addr,
    pub(crate) cidr: Ipv4Cidr,
    pub(crate) mtu: Option<u32>,
}

/// The name of the host's end: interfaces have 15 bytes, so it is a hash of the bridge's name and the
/// sandbox's id.
pub(crate) fn host_name(bridge: &str, id: &str) -> String {
    let hash = Sha256::digest(format!("{bridge}/{id}"));
    let hex: String = hash.iter().take(5).map(|byte| format!("{byte:02x}")).collect();
    format!("veth{hex}")
}

/// Brings `lo` up, for networks that are made by others.
pub(crate) async fn bring_loopback_up(netns: &std::path::Path) -> Result<(), Error> {
    kernel::inside(netns, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let runtime = runtime.map_err(Error::Socket)?;
        runtime.block_on(bridge::with_netlink(async |links| {
            let failed = |source| Error::Link { operation: "bringing up", link: "lo".to_owned(), source };
            links.link().change(LinkUnspec::new_with_index(1).up().build()).execute().await.map_err(failed)
        }))
    })
    .await
}

impl Veth {
    /// Makes the pair and configures both ends. A host end left by an earlier attempt is replaced.
    pub(crate) async fn create(self) -> Result<(), Error> {
        let host = File::open("/proc/self/ns/net")
            .map_err(|source| Error::Netns { path: "/proc/self/ns/net".into(), source })?;
        let netns = self.netns.clone();
        let (name, bridge_index) = (self.host_name.clone(), self.bridge_index);
        kernel::inside(&netns, move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
            let runtime = runtime.map_err(Error::Socket)?;
            runtime.block_on(bridge::with_netlink(async |links| self.configure_inside(&links, &host).await))
        })
        .await?;
        bridge::with_netlink(async |links| {
            let index = bridge::index_of(&links, &name).await?.ok_or_else(|| Error::NoLink(name.clone()))?;
            let failed = |operation| {
                let link = name.clone();
                move |source| Error::Link { operation, link, source }
            };
            let port = LinkUnspec::new_with_index(index).controller(bridge_index).up().build();
            links.link().change(port).execute().await.map_err(failed("joining the bridge with"))?;
            // A pod may reach itself through its own host port.
            let hairpin = LinkBridgePort::new(index).hairpin(true).build();
            links.link().set_port(hairpin).execute().await.map_err(failed("setting hairpin mode on"))
        })
        .await
    }

    async fn configure_inside(&self, links: &Handle, host: &File) -> Result<(), Error> {
        let failed = |operation| move |source| Error::Link { operation, link: INSIDE.to_owned(), source };
        let mut outside =
            LinkMessageBuilder::<LinkUnspec>::new().name(&*self.host_name).setns_by_fd(host.as_raw_fd());
        if let Some(mtu) = self.mtu {
            outside = outside.mtu(mtu);
        }
        let ip = self.ip.octets();
        let mut pair = LinkVeth::new(INSIDE, &self.host_name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(outside.build())))
            .address(vec![0x0a, 0x58, ip[0], ip[1], ip[2], ip[3]])
            .up();
        if let Some(mtu) = self.mtu {
            pair = pair.mtu(mtu);
        }
        links.link().add(pair.build()).execute().await.map_err(failed("making"))?;
        let index = bridge::index_of(links, INSIDE).await?.ok_or_else(|| Error::NoLink(INSIDE.to_owned()))?;
        let loopback = LinkUnspec::new_with_index(1).up().build();
        links.link().change(loopback).execute().await.map_err(failed("bringing up loopback beside"))?;
        kernel::refuse_redirects(INSIDE)?;
        // Alone on its link but for the gateway: what goes to other sandboxes passes the host's rules.
        let address = links.address().add(index, self.ip.into(), 32);
        address.execute().await.map_err(failed("giving an address to"))?;
        let gateway = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(self.cidr.gateway(), 32)
            .output_interface(index)
            .scope(RouteScope::Link)
            .build();
        links.route().add(gateway).execute().await.map_err(failed("adding the gateway's route over"))?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(self.cidr.gateway()).build();
        links.route().add(route).execute().await.map_err(failed("adding the default route over"))
    }
}
