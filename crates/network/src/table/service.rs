//! The rules of one port of one Service.
//!
//! Up to three chains: `service-NAME` takes any endpoint, `local-NAME` one on this node, and `external-NAME` is where
//! traffic from outside enters when it must stay on this node (pods and the machine itself are not outside).

use std::{collections::BTreeSet, net::SocketAddrV4};

use super::{
    RuleTableConfig, base,
    claims::{Changes, Element},
};
use crate::{
    ServicePort, TrafficPolicy,
    nft::{Address, Data, Expressions, Field, KeyType, Register, Set, Transaction, Verdict, concatenated},
};

/// Registers: the client's address; address and port of the endpoint (side by side); a random number.
const CLIENT: Register = Register(0);
const ENDPOINT: Register = Register(4);
const ENDPOINT_PORT: Register = Register(5);
const NUMBER: Register = Register(8);

/// Brings the table from the old Services to the new ones.
pub(super) fn change(
    change: &mut Transaction,
    elements: &Changes,
    old: &[ServicePort],
    new: &[ServicePort],
    config: &RuleTableConfig,
) {
    let now = |name: &str| new.iter().find(|service| service.name == name);
    let before = |name: &str| old.iter().find(|service| service.name == name);
    // Chains first: elements and rules lead to them.
    new.iter().for_each(|service| service.add_new_chains(change, before(&service.name)));
    change.delete_claimed(elements);
    for service in old {
        service.chains().iter().for_each(|chain| change.flush_chain(chain));
    }
    for service in old {
        let after = now(&service.name);
        for endpoint in service.sticky() {
            let stays = |after: &ServicePort| {
                after.affinity == service.affinity && after.sticky().contains(&endpoint)
            };
            if !after.is_some_and(stays) {
                change.delete_set(&service.affinity_set(&endpoint));
            }
        }
        let kept = after.map(ServicePort::chains).unwrap_or_default();
        service
            .chains()
            .iter()
            .filter(|chain| !kept.contains(chain))
            .for_each(|chain| change.delete_chain(chain));
    }
    new.iter().for_each(|service| service.add_rules(change, config));
    change.add_changed(elements);
}

impl ServicePort {
    fn service_chain(&self) -> String {
        format!("service-{}", self.name)
    }

    fn local_chain(&self) -> String {
        format!("local-{}", self.name)
    }

    fn external_chain(&self) -> String {
        format!("external-{}", self.name)
    }

    /// The chain of one endpoint, when clients stay with theirs.
    fn endpoint_chain(&self, endpoint: &SocketAddrV4) -> String {
        format!("endpoint-{}/{}/{}", self.name, endpoint.ip(), endpoint.port())
    }

    /// The set that remembers an endpoint's clients.
    fn affinity_set(&self, endpoint: &SocketAddrV4) -> String {
        format!("affinity-{}/{}/{}", self.name, endpoint.ip(), endpoint.port())
    }

    /// All endpoints. One that ends may be the last on this node while others elsewhere are ready: then it is local only.
    fn all_endpoints(&self) -> BTreeSet<SocketAddrV4> {
        self.endpoints.iter().chain(&self.local_endpoints).copied().collect()
    }

    /// Endpoints with a chain and a set of their own.
    fn sticky(&self) -> BTreeSet<SocketAddrV4> {
        if self.affinity.is_some() { self.all_endpoints() } else { BTreeSet::new() }
    }

    /// The names of the sets that remember clients, and for how many milliseconds.
    pub(super) fn affinity_sets(&self) -> Vec<(String, u64)> {
        let Some(time) = self.affinity else { return Vec::new() };
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.sticky().iter().map(|endpoint| (self.affinity_set(endpoint), millis)).collect()
    }

    fn has_outside(&self) -> bool {
        self.node_port.is_some() || !self.external_ips.is_empty()
    }

    /// Whether traffic from outside enters over a chain of its own.
    fn has_external_chain(&self) -> bool {
        self.external_policy == TrafficPolicy::Local && self.has_outside() && !self.endpoints.is_empty()
    }

    fn has_local_chain(&self) -> bool {
        let wanted = self.internal_policy == TrafficPolicy::Local || self.has_external_chain();
        wanted && !self.local_endpoints.is_empty()
    }

    /// The chains it has.
    fn chains(&self) -> Vec<String> {
        let mut chains = Vec::new();
        if self.has_external_chain() {
            chains.push(self.external_chain());
        }
        if self.has_local_chain() {
            chains.push(self.local_chain());
        }
        if !self.endpoints.is_empty() {
            chains.push(self.service_chain());
        }
        // Last: the others lead to them.
        chains.extend(self.sticky().iter().map(|endpoint| self.endpoint_chain(endpoint)));
        chains
    }

    pub(super) fn add_chains(&self, change: &mut Transaction) {
        self.add_new_chains(change, None);
    }

    fn add_new_chains(&self, change: &mut Transaction, before: Option<&Self>) {
        let there = before.map(Self::chains).unwrap_or_default();
        self.chains()
            .iter()
            .filter(|chain| !there.contains(chain))
            .for_each(|chain| change.add_chain(chain, None));
    }

    /// Fills its chains, which are empty.
    pub(super) fn add_rules(&self, change: &mut Transaction, config: &RuleTableConfig) {
        for endpoint in self.sticky() {
            let name = self.affinity_set(&endpoint);
            let timeout = self.affinity.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
            // One that is there already stays: the same declaration changes nothing.
            change.add_set(&Set { name: &name, key: &[Field::Ipv4], data: KeyType::None, timeout });
            let chain = self.endpoint_chain(&endpoint);
            // A rule of its own: a set that is full ends the rule, and the connection goes on all the same.
            let remember =
                Expressions::default().load_address(Address::Source, CLIENT).remember(&name, CLIENT);
            change.add_rule(&chain, &remember);
            change.add_rule(&chain, &lead_to(Expressions::default(), &endpoint));
        }
        if !self.endpoints.is_empty() {
            self.choose(change, &self.service_chain(), &self.endpoints);
        }
        if self.has_local_chain() {
            self.choose(change, &self.local_chain(), &self.local_endpoints);
        }
        if self.has_external_chain() {
            let (chain, everywhere) = (self.external_chain(), Verdict::Goto(self.service_chain()));
            let inside = Expressions::default().within(Address::Source, config.pod_cidr, true);
            change.add_rule(&chain, &inside.verdict(everywhere.clone()));
            change.add_rule(&chain, &Expressions::default().machine_has(Address::Source).verdict(everywhere));
            let local = match self.has_local_chain() {
                true => Verdict::Goto(self.local_chain()),
                false => Verdict::Drop,
            };
            change.add_rule(&chain, &Expressions::default().verdict(local));
        }
    }

    /// The rules that choose one of these endpoints.
    fn choose(&self, change: &mut Transaction, chain: &str, endpoints: &[SocketAddrV4]) {
        if self.affinity.is_some() {
            return self.choose_with_affinity(change, chain, endpoints);
        }
        let mut rule = Expressions::default();
        if let [only] = endpoints {
            rule = lead_to(rule, only);
        } else {
            let numbered =
                numbered(endpoints.iter().map(|to| Data::Value(base::target(*to.ip(), to.port()))));
            let map = change.add_anonymous(&[Field::Number], KeyType::Value(base::TARGET_FIELDS), &numbered);
            rule = random(rule, numbered.len()).load_from("__map%d", map, NUMBER, ENDPOINT);
            rule = rule.lead_to(ENDPOINT, ENDPOINT_PORT);
        }
        change.add_rule(chain, &rule);
    }

    /// Clients go where they were before; new ones to any. That costs the first packet of a connection one look-up per
    /// endpoint. (A map from clients to endpoints would be one look-up, but `nft` cannot list it, and then lists
    /// nothing of the whole machine.)
    fn choose_with_affinity(&self, change: &mut Transaction, chain: &str, endpoints: &[SocketAddrV4]) {
        let goto = |endpoint| Verdict::Goto(self.endpoint_chain(endpoint));
        for endpoint in endpoints {
            let again = Expressions::default()
                .load_address(Address::Source, CLIENT)
                .in_set(&self.affinity_set(endpoint), 0, CLIENT)
                .verdict(goto(endpoint));
            change.add_rule(chain, &again);
        }
        let numbered = numbered(endpoints.iter().map(|endpoint| Data::Verdict(goto(endpoint))));
        let map = change.add_anonymous(&[Field::Number], KeyType::Verdict, &numbered);
        change.add_rule(
            chain,
            &random(Expressions::default(), numbered.len()).verdict_from("__map%d", map, NUMBER),
        );
    }

    /// The elements of the shared maps that it wants.
    pub(super) fn elements(&self, config: &RuleTableConfig) -> Vec<Element> {
        let pods = config.pod_cidr;
        let mut elements = Vec::new();
        let protocol = Some(self.protocol.number());
        let place = |ip| (base::SERVICE_IPS, concatenated(Some(ip), protocol, Some(self.port)));
        let inside = self.verdict(self.internal_policy, self.local_chain());
        elements.extend(self.cluster_ips.iter().map(|ip| (place(*ip), Data::Verdict(inside.clone()))));
        let outside = match self.has_external_chain() {
            true => Verdict::Goto(self.external_chain()),
            false => self.verdict(TrafficPolicy::Cluster, String::new()),
        };
        // An address of the Services' own range is somebody's already: nobody gets his traffic by calling it external.
        let external = self.external_ips.iter().filter(|ip| !config.service_cidr.contains(**ip));
        elements.extend(external.map(|ip| (place(*ip), Data::Verdict(outside.clone()))));
        if let Some(port) = self.node_port {
            let place = (base::NODE_PORTS, concatenated(None, protocol, Some(port)));
            elements.push((place, Data::Verdict(outside)));
        }
        for endpoint in self.all_endpoints() {
            let ip = *endpoint.ip();
            if ip == pods.gateway() {
                // The machine itself, by the bridge's address.
                continue;
            }
            elements.push(if pods.contains(ip) {
                ((base::HAIRPINS, base::hairpin(ip)), Data::None)
            } else {
                ((base::REMOTE, concatenated(Some(ip), protocol, Some(endpoint.port()))), Data::None)
            });
        }
        elements
    }

    /// Where a connection goes: without any endpoint it is refused; dropped when only this node has none, as another
    /// node may have one.
    fn verdict(&self, policy: TrafficPolicy, local: String) -> Verdict {
        match policy {
            _ if self.endpoints.is_empty() => Verdict::Goto(base::REJECT.to_owned()),
            TrafficPolicy::Cluster => Verdict::Goto(self.service_chain()),
            TrafficPolicy::Local if self.local_endpoints.is_empty() => Verdict::Drop,
            TrafficPolicy::Local => Verdict::Goto(local),
        }
    }
}

/// Elements with the keys 0, 1, 2, ...
fn numbered(values: impl Iterator<Item = Data>) -> Vec<(Vec<u8>, Data)> {
    (0u32..).zip(values).map(|(number, value)| (number.to_ne_bytes().to_vec(), value)).collect()
}

/// To this endpoint and no other.
fn lead_to(rule: Expressions, endpoint: &SocketAddrV4) -> Expressions {
    rule.load(endpoint.ip().octets().to_vec(), ENDPOINT)
        .load(endpoint.port().to_be_bytes().to_vec(), ENDPOINT_PORT)
        .lead_to(ENDPOINT, ENDPOINT_PORT)
}

/// A number for one of this many.
fn random(rule: Expressions, count: usize) -> Expressions {
    rule.load_random(u32::try_from(count).expect("endpoints fit into memory"), NUMBER)
}
