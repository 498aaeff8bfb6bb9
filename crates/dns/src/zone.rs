//! The zone: names and what they have, in memory.
//!
//! Records belong to an owner (a Service), whose records are replaced together. Names that only have names below them
//! exist too, without records: asking for them gives an empty answer, not "no such name".

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

/// What a name has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Data {
    /// An address: A or AAAA.
    Address(IpAddr),
    /// A port of the host with this name (SRV).
    Service {
        /// The port.
        port: u16,
        /// The host, below the zone's domain.
        target: String,
    },
    /// Another name (CNAME), absolute.
    Alias(String),
}

/// The records of one owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Names below the zone's domain, in lower case, and what they have.
    pub forward: Vec<(String, Data)>,
    /// Addresses and the names (below the domain) that they stand for.
    pub reverse: Vec<(IpAddr, String)>,
}

/// A zone that many read while one writes.
#[derive(Clone, Debug)]
pub struct Zone(Arc<RwLock<Inner>>);

#[derive(Debug)]
pub(crate) struct Inner {
    /// In lower case, without the final dot.
    pub(crate) domain: String,
    /// The address of the server itself: that of the name `ns.dns`.
    pub(crate) server: Option<IpAddr>,
    /// Ranges whose addresses have a name here or none at all.
    ranges: Vec<(Ipv4Addr, u8)>,
    names: HashMap<String, Vec<Data>>,
    /// How many names are below each name.
    parents: HashMap<String, usize>,
    addresses: HashMap<IpAddr, Vec<String>>,
    owners: HashMap<String, Records>,
    /// Whether a name that is not here does not exist: not so while records are still coming.
    complete: bool,
}

/// What the zone has for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// These records, perhaps none.
    Name(Vec<Data>),
    /// There is no such name.
    Nothing,
    /// The name belongs to others.
    Elsewhere,
    /// The name may exist: not all records are here yet.
    NotYet,
}

impl Zone {
    /// An empty zone. `ranges` (address and prefix length) are those whose addresses nobody else knows.
    pub fn new(domain: &str, server: Option<IpAddr>, ranges: &[(Ipv4Addr, u8)]) -> Self {
        let domain = domain.trim_end_matches('.').to_ascii_lowercase();
        Self(Arc::new(RwLock::new(Inner {
            domain,
            server,
            ranges: ranges.to_vec(),
            names: HashMap::new(),
            parents: HashMap::new(),
            addresses: HashMap::new(),
            owners: HashMap::new(),
            complete: true,
        })))
    }

    /// Says whether all records are here. Before that nobody is told that a name does not exist, which a client would
    /// believe; a failure is asked again.
    pub fn set_complete(&self, complete: bool) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).complete = complete;
    }

    /// Replaces an owner's records; none takes the owner away.
    pub fn set(&self, owner: &str, records: Records) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).set(owner, records);
    }

    /// The owners, for whoever has to find out which are no more.
    pub fn owners(&self) -> Vec<String> {
        self.read().owners.keys().cloned().collect()
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn set(&mut self, owner: &str, records: Records) {
        if let Some(old) = self.owners.remove(owner) {
            for (name, data) in &old.forward {
                if let Some(has) = self.names.get_mut(name)
                    && let Some(at) = has.iter().position(|there| there == data)
                {
                    has.remove(at);
                    if has.is_empty() {
                        self.names.remove(name);
                    }
                    self.count(name, false);
                }
            }
            for (address, name) in &old.reverse {
                if let Some(names) = self.addresses.get_mut(address) {
                    if let Some(at) = names.iter().position(|there| there == name) {
                        names.remove(at);
                    }
                    if names.is_empty() {
                        self.addresses.remove(address);
                    }
                }
            }
        }
        for (name, data) in &records.forward {
            self.names.entry(name.clone()).or_default().push(data.clone());
            self.count(name, true);
        }
        for (address, name) in &records.reverse {
            self.addresses.entry(*address).or_default().push(name.clone());
        }
        if records != Records::default() {
            self.owners.insert(owner.to_owned(), records);
        }
    }

    /// Counts a record at the names above it.
    fn count(&mut self, name: &str, more: bool) {
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            if more {
                *self.parents.entry(parent.to_owned()).or_default() += 1;
            } else if let Some(count) = self.parents.get_mut(parent) {
                *count -= 1;
                if *count == 0 {
                    self.parents.remove(parent);
                }
            }
            rest = parent;
        }
    }

    /// Looks up an absolute name in lower case without the final dot.
    pub(crate) fn find(&self, name: &str) -> Found {
        if name == self.domain {
            return Found::Name(Vec::new());
        }
        let Some(below) = name.strip_suffix(&self.domain).and_then(|rest| rest.strip_suffix('.')) else {
            return Found::Elsewhere;
        };
        if let Some(has) = self.names.get(below) {
            return Found::Name(has.clone());
        }
        match below {
            "ns.dns" => Found::Name(self.server.map(Data::Address).into_iter().collect()),
            // Parts of the zone that are there without any Service.
            "svc" | "pod" | "dns" | "dns-version" => Found::Name(Vec::new()),
            _ if self.parents.contains_key(below) => Found::Name(Vec::new()),
            _ => match pod_address(below) {
                Some(ip) => Found::Name(vec![Data::Address(ip)]),
                None if self.complete => Found::Nothing,
                None => Found::NotYet,
            },
        }
    }

    /// Whether all records are here.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// The names of an address, absolute.
    pub(crate) fn names_of(&self, address: IpAddr) -> Option<Vec<String>> {
        if let Some(names) = self.addresses.get(&address) {
            return Some(names.iter().map(|name| self.absolute(name)).collect());
        }
        let IpAddr::V4(address) = address else { return None };
        let mask = |prefix: &u8| u32::MAX.checked_shl(32 - u32::from(*prefix)).unwrap_or(0);
        let ours = self
            .ranges
            .iter()
            .any(|(network, prefix)| u32::from(address) & mask(prefix) == u32::from(*network) & mask(prefix));
        ours.then(Vec::new)
    }

    /// A name below the domain in full.
    pub(crate) fn absolute(&self, name: &str) -> String {
        if name.is_empty() { self.domain.clone() } else { format!("{name}.{}", self.domain) }
    }
}

/// The address that a pod's name is made of: `10-42-0-7.NAMESPACE.pod`.
fn pod_address(below: &str) -> Option<IpAddr> {
    let (dashed, namespace) = below.strip_suffix(".pod")?.split_once('.')?;
    if namespace.is_empty() || namespace.contains('.') {
        return None;
    }
    let v4 = || dashed.replace('-', ".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    let v6 = || dashed.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    v4().or_else(v6)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn web() -> Records {
        Records {
            forward: vec![
                ("web.default.svc".into(), Data::Address(ip("10.43.0.7"))),
                (
                    "_http._tcp.web.default.svc".into(),
                    Data::Service { port: 80, target: "web.default.svc".into() },
                ),
            ],
            reverse: vec![(ip("10.43.0.7"), "web.default.svc".into())],
        }
    }

    #[test]
    fn names_are_there_with_their_owner_and_so_are_the_names_above_them() {
        let zone = Zone::new("Cluster.Local.", Some(ip("10.43.0.10")), &[("10.43.0.0".parse().unwrap(), 16)]);
        let find = |name: &str| zone.read().find(name);
        assert_eq!(find("web.default.svc.cluster.local"), Found::Nothing);
        zone.set("default/web", web());
        let address = Found::Name(vec![Data::Address(ip("10.43.0.7"))]);
        assert_eq!(find("web.default.svc.cluster.local"), address);
        for empty in ["default.svc", "_tcp.web.default.svc", "svc", "pod"] {
            assert_eq!(find(&format!("{empty}.cluster.local")), Found::Name(vec![]), "{empty}");
        }
        assert_eq!(find("cluster.local"), Found::Name(vec![]));
        for outside in ["local", "example.com", "xcluster.local", ""] {
            assert_eq!(find(outside), Found::Elsewhere, "{outside}");
        }
        let names_of = |text: &str| zone.read().names_of(ip(text));
        assert_eq!(names_of("10.43.0.7"), Some(vec!["web.default.svc.cluster.local".to_owned()]));
        assert_eq!(names_of("10.43.9.9"), Some(vec![]));
        assert_eq!(names_of("192.0.2.1"), None);
        zone.set("default/web", Records::default());
        assert_eq!(find("default.svc.cluster.local"), Found::Nothing);
        assert_eq!(names_of("10.43.0.7"), Some(vec![]));
        assert!(zone.owners().is_empty());
    }

    #[test]
    fn a_pods_name_is_its_address() {
        let zone = Zone::new("cluster.local", None, &[]);
        let find = |name: &str| zone.read().find(&format!("{name}.cluster.local"));
        assert_eq!(find("10-42-0-7.default.pod"), Found::Name(vec![Data::Address(ip("10.42.0.7"))]));
        assert_eq!(find("fd00--7.default.pod"), Found::Name(vec![Data::Address(ip("fd00::7"))]));
        for wrong in ["10-42-0.default.pod", "10-42-0-777.default.pod", "10-42-0-7.pod", "10-42-0-7.a.b.pod"]
        {
            assert_eq!(find(wrong), Found::Nothing, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_owners_leave_behind_is_nothing(
            steps in prop::collection::vec((0..4u8, prop::collection::vec(("[ab]{1,2}(\\.[ab]){0,2}", 0..3u8), 0..4)), 0..12)
        ) {
            let zone = Zone::new("d", None, &[]);
            for (owner, names) in steps {
                let forward = names.iter().map(|(name, last)| {
                    (name.clone(), Data::Address(IpAddr::from([10, 0, 0, *last])))
                });
                let records = Records {
                    forward: forward.collect(),
                    reverse: names.iter().map(|(name, last)| (IpAddr::from([10, 0, 0, *last]), name.clone())).collect(),
                };
                zone.set(&owner.to_string(), records);
                for (name, _) in &names {
                    let found = zone.read().find(&format!("{name}.d"));
                    prop_assert!(matches!(found, Found::Name(has) if !has.is_empty()));
                }
            }
            for owner in zone.owners() {
                zone.set(&owner, Records::default());
            }
            let inner = zone.read();
            prop_assert!(inner.names.is_empty() && inner.parents.is_empty() && inner.addresses.is_empty());
        }
    }
}
