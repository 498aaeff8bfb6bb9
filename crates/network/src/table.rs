//! The nftables table of one server: masquerading, host ports, Services.
//!
//! Verdict maps keyed by address, protocol and port lead a connection's first packet to its Service's chain, so what a
//! packet costs does not depend on how many Services there are; packets after the first do not come here at all. Every
//! change is one transaction that touches what changed only. When the kernel refuses one, or holds something that an
//! earlier process made, the whole table is replaced, in one transaction too: a packet sees the old or the new rules.

mod base;
mod claims;
mod host_ports;
mod service;

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use tokio::sync::Mutex;

pub(crate) use self::claims::Claims;
use crate::{Error, Ipv4Cidr, PortMapping, ServicePort, conntrack, nft::Transaction};

/// How a [`RuleTable`] is made.
#[derive(Clone, Debug)]
pub struct RuleTableConfig {
    /// The table's name; that of the bridge when there is one.
    pub name: String,
    /// The bridge that this server's pods hang on, if it makes one.
    pub bridge: Option<String>,
    /// The range of the pods' addresses.
    pub pod_cidr: Ipv4Cidr,
    /// The range of the pods' addresses of all nodes: what goes there is not masqueraded.
    pub cluster_cidr: Ipv4Cidr,
    /// The range of the Services' addresses.
    pub service_cidr: Ipv4Cidr,
    /// Whether pods of one node reach each other without passing the host's rules (a bridge of somebody else,
    /// without `br_netfilter`): then answers only come back from a Service when the client is masqueraded.
    pub pods_bypass_host: bool,
}

/// The rules of one server.
pub struct RuleTable {
    name: Arc<str>,
    config: RuleTableConfig,
    /// Held over the transaction that makes a change true, so that two changes cannot overtake each other.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Whether the kernel has what we believe, Services included. Not so at first: what an earlier process left
    /// keeps working until the Services are known.
    known: bool,
    host_ports: BTreeMap<String, (Ipv4Addr, Vec<PortMapping>)>,
    services: BTreeMap<String, ServicePort>,
    claims: Claims,
}

impl RuleTable {
    /// Makes the table, or takes over what an earlier run left: its Services stay as they are until
    /// [`replace_services`](Self::replace_services).
    ///
    /// # Errors
    /// When the kernel refuses: no `CAP_NET_ADMIN`, no nf_tables.
    pub async fn open(
        config: RuleTableConfig,
        host_ports: BTreeMap<String, (Ipv4Addr, Vec<PortMapping>)>,
    ) -> Result<Arc<Self>, Error> {
        let name: Arc<str> = config.name.as_str().into();
        let mut state = State { host_ports, ..State::default() };
        for (sandbox, (ip, mappings)) in &state.host_ports {
            state.claims.take(&host_ports::owner(sandbox), host_ports::elements(*ip, mappings));
        }
        let table = Self { name, config, state: Mutex::default() };
        let mut change = table.transaction();
        base::take_over(&mut change, &table.config);
        change.add_claimed(&state.claims);
        if table.commit(change).await.is_err() {
            // Another layout, of another version: its Services are not worth keeping.
            table.rebuild(&mut state).await?;
            state.known = false;
        } else {
            let _ = state.claims.changes();
        }
        *table.state.lock().await = state;
        Ok(Arc::new(table))
    }

    /// The range of the Services' addresses.
    pub fn service_cidr(&self) -> Ipv4Cidr {
        self.config.service_cidr
    }

    /// The range of the pods' addresses.
    pub fn pod_cidr(&self) -> Ipv4Cidr {
        self.config.pod_cidr
    }

    /// Leads host ports to a sandbox.
    ///
    /// # Errors
    /// When another sandbox has one of them, or the kernel refuses.
    pub(crate) async fn map_ports(
        &self,
        sandbox: &str,
        ip: Ipv4Addr,
        wanted: &[PortMapping],
    ) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        let others = state.host_ports.iter().filter(|(other, _)| *other != sandbox);
        let held: Vec<&PortMapping> = others.flat_map(|(_, (_, mappings))| mappings).collect();
        if let Some(clash) = wanted.iter().find(|new| held.iter().any(|old| old.clashes_with(new))) {
            return Err(Error::HostPortTaken { port: clash.host_port, protocol: clash.protocol });
        }
        state.host_ports.insert(sandbox.to_owned(), (ip, wanted.to_vec()));
        state.claims.take(&host_ports::owner(sandbox), host_ports::elements(ip, wanted));
        self.apply_claims(&mut state).await?;
        self.forget_host_ports(ip, wanted, true).await;
        Ok(())
    }

    /// Takes a sandbox's host ports away.
    pub(crate) async fn unmap_ports(&self, sandbox: &str) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        let Some((ip, mappings)) = state.host_ports.remove(sandbox) else { return Ok(()) };
        state.claims.take(&host_ports::owner(sandbox), Vec::new());
        self.apply_claims(&mut state).await?;
        self.forget_host_ports(ip, &mappings, false).await;
        Ok(())
    }

    async fn apply_claims(&self, state: &mut State) -> Result<(), Error> {
        let mut change = self.transaction();
        let changes = state.claims.changes();
        change.delete_claimed(&changes);
        change.add_changed(&changes);
        match self.commit(change).await {
            Ok(()) => Ok(()),
            Err(error) => self.repair(state, error).await,
        }
    }

    /// Says what all Services are: what was there before is replaced.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn replace_services(&self, services: Vec<ServicePort>) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        for name in state.services.keys().cloned().collect::<Vec<_>>() {
            state.claims.take(&name, Vec::new());
        }
        state.services = services.into_iter().map(|service| (service.name.clone(), service)).collect();
        let State { services, claims, .. } = &mut *state;
        for (name, service) in services {
            claims.take(name, service.elements(&self.config));
        }
        self.rebuild(&mut state).await?;
        self.forget_stale(&state, state.services.values()).await;
        Ok(())
    }

    /// Changes Services by name; `None` takes one away.
    ///
    /// # Errors
    /// When the kernel refuses the change and the whole table too. It is tried again with the next change.
    pub async fn change_services(&self, changes: HashMap<String, Option<ServicePort>>) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        let (mut old, mut new) = (Vec::new(), Vec::new());
        for (name, service) in changes {
            let before = state.services.get(&name);
            if before == service.as_ref() {
                continue;
            }
            old.extend(before.cloned());
            match service {
                Some(service) => {
                    state.claims.take(&name, service.elements(&self.config));
                    state.services.insert(name, service.clone());
                    new.push(service);
                }
                None => {
                    state.claims.take(&name, Vec::new());
                    state.services.remove(&name);
                }
            }
        }
        if old.is_empty() && new.is_empty() && state.known {
            return Ok(());
        }
        if state.known {
            let mut change = self.transaction();
            service::change(&mut change, &state.claims.changes(), &old, &new, &self.config);
            if let Err(error) = self.commit(change).await {
                self.repair(&mut state, error).await?;
            }
        } else {
            self.rebuild(&mut state).await?;
        }
        self.forget_stale(&state, old.iter().chain(&new)).await;
        Ok(())
    }

    /// Brings the table back when somebody deleted it: a firewall's restart flushes everybody's rules.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn restore_if_gone(&self) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        if state.known && !self.exists()? {
            tracing::warn!(table = &*self.name, "somebody deleted the rules; here they are again");
            self.rebuild(&mut state).await?;
        }
        Ok(())
    }

    fn exists(&self) -> Result<bool, Error> {
        let failed = |source| Error::ReadRules { table: self.name.to_string(), source };
        crate::nft::table_exists(&self.name).map_err(failed)
    }

    /// Deletes the table.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove(&self) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        state.known = false;
        let mut change = self.transaction();
        change.add_table();
        change.delete_table();
        self.commit(change).await
    }

    /// After a refusal: the whole table.
    async fn repair(&self, state: &mut State, error: Error) -> Result<(), Error> {
        tracing::warn!(table = &*self.name, error = %crate::error::chain(&error), "replacing all rules");
        let known = state.known;
        self.rebuild(state).await?;
        // Services that are not known yet are gone now, but they come with the first list.
        state.known = known;
        Ok(())
    }

    /// Replaces the table by one that says what holds now.
    async fn rebuild(&self, state: &mut State) -> Result<(), Error> {
        state.known = false;
        let mut change = self.transaction();
        base::make_anew(&mut change, &self.config);
        let services: Vec<_> = state.services.values().cloned().collect();
        let remembered = self.remembered(&services).await;
        for service in &services {
            service.add_chains(&mut change);
        }
        for service in &services {
            service.add_rules(&mut change, &self.config);
        }
        remembered.iter().for_each(|(set, clients)| change.add_remembered(set, clients));
        change.add_claimed(&state.claims);
        self.commit(change).await?;
        let _ = state.claims.changes();
        state.known = true;
        Ok(())
    }

    /// Which clients stay with which endpoint, as the kernel has it: also what an earlier process left there.
    async fn remembered(&self, services: &[ServicePort]) -> Vec<(String, Vec<(Vec<u8>, u64)>)> {
        let sets: Vec<(String, u64)> = services.iter().flat_map(ServicePort::affinity_sets).collect();
        if sets.is_empty() {
            return Vec::new();
        }
        let table = self.name.clone();
        let read = move || {
            let clients = |set: &str, longest: u64| {
                let found = crate::nft::remembered(&table, set);
                let found = found.inspect_err(|error| tracing::debug!(set, %error, "clients are forgotten"));
                let clients = found.unwrap_or_default().into_iter();
                clients.map(|(client, left)| (client, left.clamp(1, longest))).collect::<Vec<_>>()
            };
            sets.into_iter().map(|(set, longest)| (set.clone(), clients(&set, longest))).collect()
        };
        tokio::task::spawn_blocking(read).await.unwrap_or_default()
    }

    fn transaction(&self) -> Transaction {
        Transaction::new(self.name.clone())
    }

    async fn commit(&self, change: Transaction) -> Result<(), Error> {
        let done = tokio::task::spawn_blocking(move || change.commit()).await;
        let refused =
            |subject: String, source| Error::Rules { table: self.name.to_string(), subject, source };
        match done {
            Ok(Ok(())) => Ok(()),
            Ok(Err((subject, source))) => Err(refused(subject, source)),
            Err(panic) => Err(refused("the transaction".to_owned(), std::io::Error::other(panic))),
        }
    }

    /// Connections without an end (UDP) would go on to an endpoint that is gone.
    async fn forget_stale<'a>(&self, state: &State, changed: impl Iterator<Item = &'a ServicePort>) {
        let mut stale = conntrack::Stale::default();
        for service in changed {
            stale.add(
                state.services.get(&service.name).unwrap_or(service),
                state.services.contains_key(&service.name),
            );
        }
        self.forget(stale).await;
    }

    /// A sender that keeps its port would go on to the sandbox before, or past the one that has come.
    async fn forget_host_ports(&self, ip: Ipv4Addr, mappings: &[PortMapping], there: bool) {
        let mut stale = conntrack::Stale::default();
        mappings.iter().for_each(|mapping| stale.add_host_port(mapping, ip, there));
        self.forget(stale).await;
    }

    async fn forget(&self, stale: conntrack::Stale) {
        if stale.is_empty() {
            return;
        }
        let (table, services) = (self.name.clone(), self.config.service_cidr);
        let forgotten = tokio::task::spawn_blocking(move || stale.forget(services)).await;
        match forgotten {
            Ok(Ok(0)) => {}
            Ok(Ok(count)) => tracing::debug!(table = &*table, count, "UDP flows to former endpoints ended"),
            Ok(Err(error)) => {
                tracing::warn!(table = &*table, %error, "UDP flows to former endpoints may go on")
            }
            Err(error) => tracing::warn!(table = &*table, %error, "ending UDP flows"),
        }
    }
}

/// A day: what upstream allows at most for session affinity.
pub const LONGEST_AFFINITY: Duration = Duration::from_secs(86_400);
