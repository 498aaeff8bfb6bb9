//! The nftables table of the network: masquerading and host ports.
//!
//! One table, replaced as a whole in one transaction: a packet sees the old rules or the new ones, never
//! something between. Host ports are few; Services get maps of their own in the service proxy.

use std::{fmt, net::Ipv4Addr};

use nlink::{
    Connection, Nftables,
    netlink::nftables::{
        BaseChain, Chain, CtStatus, Family, FibFlags, FibResult, Field, Match, NatHook, NatStatement,
        Priority, Rule, Stmt, Transaction, Value,
    },
    netlink::types::route::RouteType,
};
use serde::{Deserialize, Serialize};

use crate::{Error, Ipv4Cidr, PortMapping};

const PREROUTING: &str = "prerouting";
const OUTPUT: &str = "output";
const POSTROUTING: &str = "postrouting";

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// The table of one network.
pub(crate) struct Rules {
    table: String,
    cidr: Ipv4Cidr,
}

impl Rules {
    pub(crate) fn new(table: String, cidr: Ipv4Cidr) -> Self {
        Self { table, cidr }
    }

    /// Replaces the table by one that says what holds now.
    pub(crate) async fn apply<'a>(
        &self,
        ports: impl Iterator<Item = &'a (Ipv4Addr, Vec<PortMapping>)>,
    ) -> Result<(), Error> {
        self.run(async |connection| {
            let mut change = self.emptied(connection).await?;
            change = change.add_table(&self.table, Family::Ip);
            for (name, hook, priority) in [
                (PREROUTING, NatHook::Prerouting, Priority::DstNat),
                (OUTPUT, NatHook::Output, Priority::DstNat),
                (POSTROUTING, NatHook::Postrouting, Priority::SrcNat),
            ] {
                let chain = Chain::new(self.table.as_str(), name)?.family(Family::Ip);
                change = change.add_chain(chain.base(BaseChain::nat(hook, priority)));
            }
            for rule in self.masquerading() {
                change = change.add_rule(rule);
            }
            for (ip, mappings) in ports {
                for mapping in mappings {
                    for chain in [PREROUTING, OUTPUT] {
                        change = change.add_rule(self.host_port(chain, *ip, mapping));
                    }
                }
            }
            change.commit(connection).await
        })
        .await
    }

    /// Deletes the table.
    pub(crate) async fn remove(&self) -> Result<(), Error> {
        self.run(async |connection| self.emptied(connection).await?.commit(connection).await).await
    }

    /// A transaction that begins by deleting the table when it is there (the message that deletes either way
    /// came with kernel 6.3). Nobody else makes or deletes this table, so nothing races.
    async fn emptied(&self, connection: &Connection<Nftables>) -> nlink::Result<Transaction> {
        let change = connection.transaction();
        let tables = connection.list_tables_in(Family::Ip).await?;
        match tables.iter().any(|table| table.name == self.table) {
            true => Ok(change.del_table(&self.table, Family::Ip)),
            false => Ok(change),
        }
    }

    fn masquerading(&self) -> [Rule; 3] {
        let pods = || Value::Prefix(self.cidr.network().into(), self.cidr.prefix());
        let rule = || Rule::new(&self.table, POSTROUTING).family(Family::Ip);
        [
            // Out of the pod network: with the host's address.
            rule()
                .then(Match::eq(Field::Ip4Saddr, pods()))
                .then(Match::ne(Field::Ip4Daddr, pods()))
                .then(Stmt::Masquerade),
            // From the host's own 127.0.0.1 to a host port: the pod could not answer that address.
            rule()
                .then(Match::eq(Field::Oifname, self.table.as_str()))
                .then(Match::eq(Field::Ip4Saddr, Value::Prefix(Ipv4Addr::new(127, 0, 0, 0).into(), 8)))
                .then(Stmt::Masquerade),
            // From pod to pod over a host port: the answer must come back through the host.
            rule()
                .then(Match::eq(Field::Ip4Saddr, pods()))
                .then(Match::eq(Field::CtStatus, Value::CtStatus(CtStatus::DST_NAT)))
                .then(Stmt::Masquerade),
        ]
    }

    fn host_port(&self, chain: &str, ip: Ipv4Addr, mapping: &PortMapping) -> Rule {
        let port = match mapping.protocol {
            Protocol::Tcp => Field::TcpDport,
            Protocol::Udp => Field::UdpDport,
        };
        let local = Field::Fib { flags: FibFlags::DADDR, result: FibResult::AddrType };
        let mut rule = Rule::new(&self.table, chain).family(Family::Ip);
        rule = match mapping.host_ip.filter(|ip| !ip.is_unspecified()) {
            Some(host_ip) => rule.then(Match::eq(Field::Ip4Daddr, host_ip)),
            None => rule.then(Match::eq(local, Value::RouteType(RouteType::Local))),
        };
        rule.then(Match::eq(port, mapping.host_port))
            .then(Stmt::Nat(NatStatement::dnat(ip).port(mapping.container_port)))
    }

    async fn run(
        &self,
        work: impl AsyncFnOnce(&Connection<Nftables>) -> nlink::Result<()>,
    ) -> Result<(), Error> {
        let failed = |source| Error::Rules { table: format!("ip {}", self.table), source };
        let connection = Connection::<Nftables>::new().map_err(failed)?;
        work(&connection).await.map_err(failed)
    }
}
