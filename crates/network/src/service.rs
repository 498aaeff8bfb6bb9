//! A port of a Service as the proxy sees it: addresses in front, addresses behind, and how one is chosen.
//!
//! Nothing here knows what a Service object is; the crate `services` reads them and says it in these words.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Its number in an IP header.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// Which endpoints take part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// All.
    #[default]
    Cluster,
    /// Those on this node; without one, packets are dropped.
    Local,
}

/// One port of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Unique, and part of the names of chains: letters, digits, `/`, `-`, `.` and `_`, at most 200.
    pub name: String,
    /// The protocol in front and behind.
    pub protocol: Protocol,
    /// The port at the addresses in front.
    pub port: u16,
    /// Addresses inside of the cluster.
    pub cluster_ips: Vec<Ipv4Addr>,
    /// Addresses that lead here from outside.
    pub external_ips: Vec<Ipv4Addr>,
    /// A port of every address of this machine that leads here.
    pub node_port: Option<u16>,
    /// What those who use [`cluster_ips`](Self::cluster_ips) reach.
    pub internal_policy: TrafficPolicy,
    /// What those who come from outside reach.
    pub external_policy: TrafficPolicy,
    /// How long a client stays with an endpoint after its last connection.
    pub affinity: Option<Duration>,
    /// All endpoints that may be used.
    pub endpoints: Vec<SocketAddrV4>,
    /// Those of them on this node.
    pub local_endpoints: Vec<SocketAddrV4>,
}
