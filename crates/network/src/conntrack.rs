//! Connection tracking: ending UDP flows whose endpoint is gone, of Services and of host ports.
//!
//! A TCP client sees its connection end and opens another. A UDP flow lives as long as somebody sends, and the kernel
//! leads it where its first packet was led; so after a change of endpoints, entries that lead elsewhere are deleted.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{Ipv4Addr, SocketAddrV4},
};

use crate::{
    Ipv4Cidr, PortMapping, Protocol, ServicePort,
    netlink::{ACK, Attribute, DUMP, Messages, Reply, Socket, attributes, kind},
};

/// `NFNL_SUBSYS_CTNETLINK` with its messages.
const GET: u16 = kind(1, 1);
const DELETE: u16 = kind(1, 2);
const FAMILY_IPV4: u8 = 2;
/// Attributes: the tuple that a connection began with, and that of its answers.
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;

/// What changed: flows to these fronts have to lead to one of their endpoints.
#[derive(Debug, Default)]
pub(crate) struct Stale {
    fronts: HashMap<(Ipv4Addr, u16), HashSet<SocketAddrV4>>,
    node_ports: HashMap<u16, HashSet<SocketAddrV4>>,
    /// Ports of the machine, whatever its addresses are, that lead to a sandbox or to nobody any more.
    host_ports: HashMap<u16, Option<SocketAddrV4>>,
}

/// One direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tuple {
    protocol: u8,
    source: SocketAddrV4,
    destination: SocketAddrV4,
}

impl Stale {
    /// A Service that changed, or (`there` is false) is no more.
    pub(crate) fn add(&mut self, service: &ServicePort, there: bool) {
        if service.protocol != Protocol::Udp {
            return;
        }
        let endpoints: HashSet<SocketAddrV4> = service.endpoints.iter().filter(|_| there).copied().collect();
        for ip in service.cluster_ips.iter().chain(&service.external_ips) {
            self.fronts.insert((*ip, service.port), endpoints.clone());
        }
        if let Some(port) = service.node_port {
            self.node_ports.insert(port, endpoints);
        }
    }

    /// A sandbox's host port, which leads to it or (`there` is false) does so no more.
    pub(crate) fn add_host_port(&mut self, mapping: &PortMapping, ip: Ipv4Addr, there: bool) {
        if mapping.protocol != Protocol::Udp {
            return;
        }
        let target = there.then(|| SocketAddrV4::new(ip, mapping.container_port));
        match mapping.host_ip.filter(|host_ip| !host_ip.is_unspecified()) {
            Some(host_ip) => {
                self.fronts.insert((host_ip, mapping.host_port), target.into_iter().collect());
            }
            None => {
                self.host_ports.insert(mapping.host_port, target);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.fronts.is_empty() && self.node_ports.is_empty() && self.host_ports.is_empty()
    }

    fn is_stale(&self, original: Tuple, reply: Tuple, services: Ipv4Cidr) -> bool {
        let (ip, port) = (*original.destination.ip(), original.destination.port());
        match self.fronts.get(&(ip, port)) {
            Some(endpoints) => !endpoints.contains(&reply.source),
            // One that was not led anywhere is of a time before the Service; without a translated source nothing is
            // lost with its entry.
            None => {
                let translated = reply.source != original.destination;
                let plain = reply.destination == original.source;
                let elsewhere = translated || plain;
                let of_node = self.node_ports.get(&port);
                // A Service of the same port (DNS) is led by rules of its own.
                let of_host = self.host_ports.get(&port).filter(|_| !services.contains(ip));
                elsewhere
                    && (of_node.is_some_and(|endpoints| !endpoints.contains(&reply.source))
                        || of_host.is_some_and(|target| *target != Some(reply.source)))
            }
        }
    }

    /// Deletes the flows that lead elsewhere; how many there were. The range is that of the Services' addresses.
    pub(crate) fn forget(&self, services: Ipv4Cidr) -> io::Result<usize> {
        let socket = Socket::open()?;
        let mut request = Messages::default();
        request.add(GET, DUMP, FAMILY_IPV4, 0, |_| {});
        let mut stale: Vec<Vec<u8>> = Vec::new();
        socket.dump(&request, |reply: Reply<'_>| {
            if reply.kind != kind(1, 0) {
                return;
            }
            let found = |wanted| attributes(reply.body).find(|attribute| attribute.kind == wanted);
            let (Some(original), Some(answers)) = (found(TUPLE_ORIGINAL), found(TUPLE_REPLY)) else { return };
            let (Some(from), Some(back)) = (Tuple::read(original), Tuple::read(answers)) else { return };
            if from.protocol == Protocol::Udp.number() && self.is_stale(from, back, services) {
                stale.push(original.value.to_vec());
            }
        })?;
        let mut gone = 0;
        for tuple in stale {
            let mut request = Messages::default();
            request.add(DELETE, ACK, FAMILY_IPV4, 0, |message| {
                // The attribute is nested: what was read is written again.
                message.bytes(TUPLE_ORIGINAL | 0x8000, &tuple);
            });
            // It may have ended by itself meanwhile.
            gone += usize::from(socket.send(&request).is_ok());
        }
        Ok(gone)
    }
}

impl Tuple {
    fn read(tuple: Attribute<'_>) -> Option<Self> {
        let (mut addresses, mut protocol, mut ports) = ([None; 2], None, [None; 2]);
        for part in tuple.nested() {
            for field in part.nested() {
                let address = || <[u8; 4]>::try_from(field.value).ok().map(Ipv4Addr::from);
                let port = || <[u8; 2]>::try_from(field.value).ok().map(u16::from_be_bytes);
                match (part.kind, field.kind) {
                    (1, 1) => addresses[0] = address(),
                    (1, 2) => addresses[1] = address(),
                    (2, 1) => protocol = field.value.first().copied(),
                    (2, 2) => ports[0] = port(),
                    (2, 3) => ports[1] = port(),
                    _ => {}
                }
            }
        }
        Some(Self {
            protocol: protocol?,
            source: SocketAddrV4::new(addresses[0]?, ports[0]?),
            destination: SocketAddrV4::new(addresses[1]?, ports[1]?),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(text: &str) -> SocketAddrV4 {
        text.parse().unwrap()
    }

    /// Whether a flow from `source` to `destination` ends that was led to `to` and left as `from`.
    fn ends(stale: &Stale, source: &str, destination: &str, to: &str, from: &str) -> bool {
        let protocol = Protocol::Udp.number();
        let original = Tuple { protocol, source: at(source), destination: at(destination) };
        let reply = Tuple { protocol, source: at(to), destination: at(from) };
        stale.is_stale(original, reply, "10.96.0.0/16".parse().unwrap())
    }

    #[test]
    fn flows_to_a_host_port_end_unless_they_lead_to_its_sandbox() {
        let mapping = |host_ip: Option<&str>| PortMapping {
            protocol: Protocol::Udp,
            container_port: 5300,
            host_port: 53,
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        };
        let (client, node) = ("192.0.2.9:4000", "192.0.2.1:53");
        let mut stale = Stale::default();
        stale.add_host_port(&mapping(None), "10.0.0.5".parse().unwrap(), true);
        assert!(!ends(&stale, client, node, "10.0.0.5:5300", client));
        assert!(ends(&stale, client, node, "10.0.0.4:5300", client), "to the one before");
        assert!(ends(&stale, client, node, node, client), "of a time before the mapping");
        // What has nothing to do with it: a pod's question to a server outside, and to the cluster's DNS.
        assert!(!ends(&stale, "10.0.0.7:4000", "8.8.8.8:53", "8.8.8.8:53", "192.0.2.1:4000"));
        assert!(!ends(&stale, "10.0.0.7:4000", "10.96.0.10:53", "10.0.0.1:40053", "10.0.0.7:4000"));
        let mut gone = Stale::default();
        gone.add_host_port(&mapping(None), "10.0.0.5".parse().unwrap(), false);
        assert!(ends(&gone, client, node, "10.0.0.5:5300", client));
        let mut one = Stale::default();
        one.add_host_port(&mapping(Some("192.0.2.1")), "10.0.0.5".parse().unwrap(), true);
        assert!(ends(&one, client, node, "10.0.0.4:5300", client));
        assert!(!ends(&one, client, "192.0.2.2:53", "10.0.0.4:5300", client));
        let mut tcp = Stale::default();
        let mapping = PortMapping { protocol: Protocol::Tcp, ..mapping(None) };
        tcp.add_host_port(&mapping, "10.0.0.5".parse().unwrap(), true);
        assert!(tcp.is_empty());
    }
}
