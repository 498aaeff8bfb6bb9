//! Ports of the host that lead to a sandbox.

use std::net::Ipv4Addr;

use super::{base, claims::Element};
use crate::{
    PortMapping,
    nft::{Data, concatenated},
};

/// The name under which a sandbox claims elements; no Service's name begins like this.
pub(super) fn owner(sandbox: &str) -> String {
    format!("/{sandbox}")
}

/// The elements of a sandbox with this address.
pub(super) fn elements(ip: Ipv4Addr, mappings: &[PortMapping]) -> Vec<Element> {
    let mut elements = Vec::new();
    for mapping in mappings {
        let (protocol, port) = (Some(mapping.protocol.number()), Some(mapping.host_port));
        let place = match mapping.host_ip.filter(|ip| !ip.is_unspecified()) {
            Some(host_ip) => (base::HOST_PORTS_AT, concatenated(Some(host_ip), protocol, port)),
            None => (base::HOST_PORTS, concatenated(None, protocol, port)),
        };
        elements.push((place, Data::Value(base::target(ip, mapping.container_port))));
    }
    if !elements.is_empty() {
        elements.push(((base::HAIRPINS, base::hairpin(ip)), Data::None));
    }
    elements
}
