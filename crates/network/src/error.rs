//! What can go wrong with a network: the operation and what it concerned.

use std::{io, path::PathBuf};

use crate::{Ipv4Cidr, Protocol};

/// A failure of the sandbox network.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A text that is no IPv4 range.
    #[error("`{0}` is not an IPv4 range such as 10.42.0.0/24 (prefix length 8 to 30)")]
    Cidr(String),
    /// The state directory or a file in it cannot be used.
    #[error("network state {path}", path = .path.display())]
    State {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No address is left.
    #[error("no address is left in {0}: delete pods or choose a larger --cluster-cidr")]
    Exhausted(Ipv4Cidr),
    /// Another sandbox has the host port.
    #[error("host port {port}/{protocol} is used by another pod")]
    HostPortTaken {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
    },
    /// A kernel setting cannot be written.
    #[error("writing kernel setting {path}", path = .path.display())]
    Sysctl {
        /// The file below /proc/sys.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A network namespace cannot be opened or entered.
    #[error("entering network namespace {path}", path = .path.display())]
    Netns {
        /// The file it is bound to.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A netlink socket cannot be had.
    #[error("opening a netlink socket")]
    Socket(#[source] io::Error),
    /// The kernel refused a link, an address or a route.
    #[error("{operation} {link}")]
    Link {
        /// What was tried.
        operation: &'static str,
        /// On which interface.
        link: String,
        /// The kernel's answer.
        #[source]
        source: rtnetlink::Error,
    },
    /// The interface does not exist.
    #[error("interface {0} does not exist")]
    NoLink(String),
    /// The kernel refused an nftables transaction.
    #[error("changing nftables table ip {table} ({subject})")]
    Rules {
        /// The table.
        table: String,
        /// The chain, set or map that was refused.
        subject: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// There is no CNI network, or its configuration is broken.
    #[error("CNI configuration {path}: {message}", path = .path.display())]
    CniConfiguration {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A CNI plugin refused.
    #[error("{operation} CNI plugin {plugin}: {message}")]
    CniPlugin {
        /// The plugin's name.
        plugin: String,
        /// What was asked of it.
        operation: &'static str,
        /// What it said.
        message: String,
    },
    /// The rules cannot be looked at.
    #[error("reading nftables table ip {table}")]
    ReadRules {
        /// The table.
        table: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
