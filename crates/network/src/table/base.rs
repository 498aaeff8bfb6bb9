//! What is in the table whatever pods and Services there are: the hooks, the maps, masquerading.

use std::net::Ipv4Addr;

use super::RuleTableConfig;
use crate::{
    Ipv4Cidr,
    nft::{Address, Expressions, Field, Hook, KeyType, Register, Set, Transaction, Verdict},
};

/// Where connections that nobody takes end.
pub(super) const REJECT: &str = "reject";
/// Address, protocol, port to a Service's chain.
pub(super) const SERVICE_IPS: &str = "service-ips";
/// Protocol, port to a Service's chain, for every address of the machine.
pub(super) const NODE_PORTS: &str = "node-ports";
/// Protocol, port to a sandbox, for every address of the machine.
pub(super) const HOST_PORTS: &str = "host-ports";
/// Address, protocol, port to a sandbox.
pub(super) const HOST_PORTS_AT: &str = "host-ports-at";
/// Pairs of the same pod's address: a pod that reaches itself over a Service.
pub(super) const HAIRPINS: &str = "hairpins";
/// Endpoints outside of the pods' range: their answers must come back through this machine.
pub(super) const REMOTE: &str = "remote-endpoints";

const GUARD: &str = "guard";
const PREROUTING: &str = "prerouting";
const OUTPUT: &str = "output";
const POSTROUTING: &str = "postrouting";
const DISPATCH: &str = "dispatch";

const AT: [Field; 3] = [Field::Ipv4, Field::Protocol, Field::Port];
const ANYWHERE: [Field; 2] = [Field::Protocol, Field::Port];
const TARGET: [Field; 2] = [Field::Ipv4, Field::Port];

const SETS: [Set<'_>; 6] = [
    Set { name: SERVICE_IPS, key: &AT, data: KeyType::Verdict, timeout: None },
    Set { name: NODE_PORTS, key: &ANYWHERE, data: KeyType::Verdict, timeout: None },
    Set { name: HOST_PORTS, key: &ANYWHERE, data: KeyType::Value(&TARGET), timeout: None },
    Set { name: HOST_PORTS_AT, key: &AT, data: KeyType::Value(&TARGET), timeout: None },
    Set { name: HAIRPINS, key: &[Field::Ipv4, Field::Ipv4], data: KeyType::None, timeout: None },
    Set { name: REMOTE, key: &AT, data: KeyType::None, timeout: None },
];

/// `NF_IP_PRI_RAW`, `NF_IP_PRI_NAT_DST` and `NF_IP_PRI_NAT_SRC`.
const HOOKS: [(&str, Hook); 4] = [
    (GUARD, Hook { kind: "filter", number: 0, priority: -300 }),
    (PREROUTING, Hook { kind: "nat", number: 0, priority: -100 }),
    (OUTPUT, Hook { kind: "nat", number: 3, priority: -100 }),
    (POSTROUTING, Hook { kind: "nat", number: 4, priority: 100 }),
];

/// Deletes whatever table there is and makes one without Services and host ports.
pub(super) fn make_anew(change: &mut Transaction, config: &RuleTableConfig) {
    change.add_table();
    change.delete_table();
    make(change, config);
}

/// Makes the table or takes the one that is there: its Services stay, host ports and masquerading are made anew.
/// The kernel refuses when that table has another layout.
pub(super) fn take_over(change: &mut Transaction, config: &RuleTableConfig) {
    declare(change);
    for chain in [GUARD, PREROUTING, OUTPUT, POSTROUTING, DISPATCH, REJECT] {
        change.flush_chain(chain);
    }
    change.flush_set(HOST_PORTS);
    change.flush_set(HOST_PORTS_AT);
    add_rules(change, config);
}

fn make(change: &mut Transaction, config: &RuleTableConfig) {
    declare(change);
    add_rules(change, config);
}

fn declare(change: &mut Transaction) {
    change.add_table();
    change.add_chain(REJECT, None);
    SETS.iter().for_each(|set| change.add_set(set));
    change.add_chain(DISPATCH, None);
    HOOKS.iter().for_each(|(name, hook)| change.add_chain(name, Some(*hook)));
}

/// Address, protocol and port of the packet's destination into registers 0, 1 and 2.
fn destination() -> Expressions {
    Expressions::default()
        .load_address(Address::Destination, Register(0))
        .load_protocol(Register(1))
        .load_port(Register(2))
}

/// Protocol and port into registers 0 and 1, when the destination is an address of this machine.
fn local_destination() -> Expressions {
    Expressions::default().machine_has(Address::Destination).load_protocol(Register(0)).load_port(Register(1))
}

fn add_rules(change: &mut Transaction, config: &RuleTableConfig) {
    let loopback: Ipv4Cidr = "127.0.0.0/8".parse().expect("a range");
    if let Some(bridge) = &config.bridge {
        // Packets from 127.0.0.1 may leave over the bridge (host ports answer there), so the kernel would also take
        // packets to 127.0.0.1 that a pod forges: to what listens on the machine's loopback only.
        let forged = Expressions::default()
            .interface(Address::Source, bridge)
            .within(Address::Destination, loopback, true)
            .verdict(Verdict::Drop);
        change.add_rule(GUARD, &forged);
    }
    for chain in [PREROUTING, OUTPUT] {
        change.add_rule(chain, &Expressions::default().verdict(Verdict::Jump(DISPATCH.to_owned())));
    }
    change.add_rule(REJECT, &Expressions::default().reject());
    let (target, port) = (Register(4), Register(5));
    for rule in [
        destination().verdict_from(SERVICE_IPS, 0, Register(0)),
        // No Service has this address, or not this port.
        Expressions::default().within(Address::Destination, config.service_cidr, true).reject(),
        local_destination().verdict_from(NODE_PORTS, 0, Register(0)),
        destination().load_from(HOST_PORTS_AT, 0, Register(0), target).lead_to(target, port),
        local_destination().load_from(HOST_PORTS, 0, Register(0), target).lead_to(target, port),
    ] {
        change.add_rule(DISPATCH, &rule);
    }
    for rule in masquerading(config, loopback) {
        change.add_rule(POSTROUTING, &rule);
    }
}

fn masquerading(config: &RuleTableConfig, loopback: Ipv4Cidr) -> Vec<Expressions> {
    let mut rules = Vec::new();
    if let Some(bridge) = &config.bridge {
        // Out of the pod network: with the host's address.
        rules.push(
            Expressions::default()
                .within(Address::Source, config.pod_cidr, true)
                .within(Address::Destination, config.cluster_cidr, false)
                .masquerade(),
        );
        // From the host's own 127.0.0.1 to a host or node port: the pod could not answer that address.
        rules.push(
            Expressions::default()
                .within(Address::Source, loopback, true)
                .interface(Address::Destination, bridge)
                .masquerade(),
        );
    }
    // From a pod to itself over a Service or a host port: it would not take a packet from its own address. Ranges are
    // compared first, here and below: that is cheaper than to look into a set.
    rules.push(
        Expressions::default()
            .translated()
            .within(Address::Source, config.pod_cidr, true)
            .load_address(Address::Source, Register(0))
            .load_address(Address::Destination, Register(1))
            .in_set(HAIRPINS, 0, Register(0))
            .masquerade(),
    );
    let remote = Expressions::default().translated().within(Address::Destination, config.pod_cidr, false);
    rules.push(
        remote
            .load_address(Address::Destination, Register(0))
            .load_protocol(Register(1))
            .load_port(Register(2))
            .in_set(REMOTE, 0, Register(0))
            .masquerade(),
    );
    if config.pods_bypass_host {
        rules.push(
            Expressions::default()
                .within(Address::Source, config.pod_cidr, true)
                .within(Address::Destination, config.pod_cidr, true)
                .translated()
                .masquerade(),
        );
    }
    rules
}

/// The address and the port behind, as they lie in registers and maps.
pub(super) fn target(ip: Ipv4Addr, port: u16) -> Vec<u8> {
    crate::nft::concatenated(Some(ip), None, Some(port))
}

/// The key of a pod that reaches itself.
pub(super) fn hairpin(ip: Ipv4Addr) -> Vec<u8> {
    [ip.octets(), ip.octets()].concat()
}

/// What maps to endpoints lead to.
pub(super) const TARGET_FIELDS: &[Field] = &TARGET;
