//! Connection tracking: ending UDP flows whose endpoint is gone.
//!
//! A TCP client sees its connection end and opens another. A UDP flow lives as long as somebody sends, and the kernel
//! leads it where its first packet was led; so after a change of endpoints, entries that lead elsewhere are deleted.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{Ipv4Addr, SocketAddrV4},
};

use crate::{
    Protocol, ServicePort,
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

    pub(crate) fn is_empty(&self) -> bool {
        self.fronts.is_empty() && self.node_ports.is_empty()
    }

    fn is_stale(&self, original: Tuple, reply: Tuple) -> bool {
        let (ip, port) = (*original.destination.ip(), original.destination.port());
        match self.fronts.get(&(ip, port)) {
            Some(endpoints) => !endpoints.contains(&reply.source),
            // One that was not led anywhere is of a time before the Service; without a translated source nothing is
            // lost with its entry.
            None => self.node_ports.get(&port).is_some_and(|endpoints| {
                let translated = reply.source != original.destination;
                let plain = reply.destination == original.source;
                (translated || plain) && !endpoints.contains(&reply.source)
            }),
        }
    }

    /// Deletes the flows that lead elsewhere; how many there were.
    pub(crate) fn forget(&self) -> io::Result<usize> {
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
            if from.protocol == Protocol::Udp.number() && self.is_stale(from, back) {
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
