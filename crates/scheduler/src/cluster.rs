//! The scheduler's picture of the cluster: nodes, what is taken on them, and the pods that wait.
//!
//! A placement is *assumed* as soon as it is decided, before the API knows it; the next pod then sees it. The watch
//! confirms it later, or a failed binding takes it back.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sampan_api::Quantity;
use sampan_api::resources::ResourceList;

use crate::budget::Budget;
use crate::node::Node;
use crate::pod::{HostPort, Labels, Pod, PodKey};

#[derive(Debug, Default)]
pub(crate) struct Cluster {
    /// By name; sorted, so that decisions do not depend on chance. Without [`NodeState::node`]: pods name a node
    /// that is not there (yet).
    nodes: BTreeMap<String, NodeState>,
    pods: HashMap<PodKey, Known>,
    /// The labels of namespaces, for terms that select them.
    namespaces: BTreeMap<String, Labels>,
    /// PodDisruptionBudgets, by the key that a pod would have; preemption looks at them.
    budgets: BTreeMap<PodKey, Budget>,
    /// How many placed pods have anti-affinity: without any, nobody has to look for them.
    averse: usize,
    /// Nodes that are being made free for pods, as we decided it.
    nominations: BTreeMap<PodKey, String>,
}

/// A node and what is taken on it.
#[derive(Debug, Default)]
pub(crate) struct NodeState {
    pub(crate) node: Option<Node>,
    pub(crate) taken: Taken,
    placed: BTreeSet<PodKey>,
}

/// What pods take of a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken {
    pub(crate) requested: ResourceList,
    pub(crate) pods: i64,
    pub(crate) ports: Vec<HostPort>,
}

impl Taken {
    fn add(&mut self, pod: &Pod) {
        sampan_api::resources::add(&mut self.requested, &pod.requests);
        self.pods += 1;
        self.ports.extend(pod.ports.iter().cloned());
    }

    fn remove(&mut self, pod: &Pod) {
        for (resource, quantity) in &pod.requests {
            let requested = self.requested.entry(resource.clone()).or_insert(Quantity::ZERO);
            *requested -= *quantity;
        }
        self.pods -= 1;
        for port in &pod.ports {
            if let Some(at) = self.ports.iter().position(|taken| taken == port) {
                self.ports.swap_remove(at);
            }
        }
    }
}

#[derive(Debug)]
struct Known {
    pod: Pod,
    /// Whether the node is our decision, which the API has not confirmed.
    assumed: bool,
    /// It is being deleted for a more important one; the watch has perhaps not said so yet.
    evicted: bool,
}

/// What an update changed for the pods that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    None,
    /// Something may fit now that did not before.
    Freed,
}

impl Cluster {
    /// The nodes that exist.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&Node, &NodeState)> {
        self.nodes.values().filter_map(|state| Some((state.node.as_ref()?, state)))
    }

    /// The pods that have a node which exists, each with it.
    pub(crate) fn placed(&self) -> impl Iterator<Item = (&Pod, &Node)> {
        self.nodes().flat_map(move |(node, state)| {
            state.placed.iter().filter_map(move |key| Some((self.pod(key)?, node)))
        })
    }

    /// The pods of a node.
    pub(crate) fn placed_on(&self, node: &str) -> impl Iterator<Item = &Pod> {
        let state = self.nodes.get(node).into_iter();
        state.flat_map(|state| state.placed.iter().filter_map(|key| self.pod(key)))
    }

    pub(crate) fn has_anti_affinity(&self) -> bool {
        self.averse > 0
    }

    pub(crate) fn namespaces(&self) -> &BTreeMap<String, Labels> {
        &self.namespaces
    }

    /// Takes a namespace's labels; `None` when it is gone.
    pub(crate) fn set_namespace(&mut self, name: String, labels: Option<Labels>) -> Effect {
        let before = match labels.clone() {
            Some(labels) => self.namespaces.insert(name, labels),
            None => self.namespaces.remove(&name),
        };
        if before == labels { Effect::None } else { Effect::Freed }
    }

    pub(crate) fn budgets(&self) -> &BTreeMap<PodKey, Budget> {
        &self.budgets
    }

    /// Takes a PodDisruptionBudget; `None` when it is gone. Nobody waits for one: it only says who is spared.
    pub(crate) fn set_budget(&mut self, key: PodKey, budget: Option<Budget>) {
        match budget {
            Some(budget) => drop(self.budgets.insert(key, budget)),
            None => drop(self.budgets.remove(&key)),
        }
    }

    /// The node that is being made free for a pod.
    pub(crate) fn nominated(&self, pod: &PodKey) -> Option<&str> {
        self.nominations.get(pod).map(String::as_str)
    }

    /// From now on this room is kept for the pod against those of lower priority. Returns the lesser pods for which the
    /// node was being made free: that is over, they look for another one.
    pub(crate) fn nominate(&mut self, pod: &PodKey, node: &str) -> Vec<PodKey> {
        let priority = self.pod(pod).map(|pod| pod.priority);
        let nominated = self.nominations.iter().filter(|(_, other)| *other == node);
        let lesser = nominated.filter(|(key, _)| self.pod(key).map(|other| other.priority) < priority);
        let lesser: Vec<PodKey> = lesser.map(|(key, _)| key.clone()).collect();
        for key in &lesser {
            self.nominations.remove(key);
            if let Some(wishes) = self.pods.get_mut(key).and_then(|known| known.pod.wishes.as_mut()) {
                wishes.nominated = None;
            }
        }
        self.nominations.insert(pod.clone(), node.to_owned());
        lesser
    }

    /// A pod is being evicted: until the watch says so itself nobody has to ask again.
    pub(crate) fn expect_end(&mut self, pod: &PodKey) {
        if let Some(known) = self.pods.get_mut(pod) {
            known.pod.ending = true;
            known.pod.preempted = true;
            known.evicted = true;
        }
    }

    /// It could not be evicted: it is as it was.
    pub(crate) fn expect_no_end(&mut self, pod: &PodKey, uid: &str) {
        if let Some(known) = self.pods.get_mut(pod).filter(|known| known.pod.uid == uid) {
            known.pod.ending = false;
            known.pod.preempted = false;
            known.evicted = false;
        }
    }

    /// Whether some waiting pod wants others near it or spread.
    pub(crate) fn somebody_wants_company(&self) -> bool {
        self.pods.values().any(|known| {
            known.pod.node.is_none() && known.pod.wishes.as_ref().is_some_and(|wishes| wishes.wants_company())
        })
    }

    /// What is taken on a node from the point of view of `pod`: by the pods there but those in `without`, and by pods
    /// for which it is being made free and that are at least as important.
    pub(crate) fn taken(&self, node: &Node, pod: &Pod, without: &BTreeSet<PodKey>) -> Taken {
        let Some(state) = self.nodes.get(&node.name) else { return Taken::default() };
        let mut taken = state.taken.clone();
        for gone in without.iter().filter(|key| state.placed.contains(*key)).filter_map(|key| self.pod(key)) {
            taken.remove(gone);
        }
        let first = self.nominations.iter().filter(|(key, name)| **name == node.name && **key != pod.key);
        for other in first.filter_map(|(key, _)| self.pod(key)) {
            if other.node.is_none() && other.priority >= pod.priority {
                taken.add(other);
            }
        }
        taken
    }

    pub(crate) fn pod(&self, key: &PodKey) -> Option<&Pod> {
        self.pods.get(key).map(|known| &known.pod)
    }

    pub(crate) fn set_node(&mut self, node: Node) -> Effect {
        let state = self.nodes.entry(node.name.clone()).or_default();
        if state.node.as_ref() == Some(&node) {
            return Effect::None;
        }
        state.node = Some(node);
        Effect::Freed
    }

    pub(crate) fn remove_node(&mut self, name: &str) -> Effect {
        if let Some(state) = self.nodes.get_mut(name) {
            state.node = None;
            if state.placed.is_empty() {
                self.nodes.remove(name);
            }
        }
        // Pods are spread over one place less.
        if self.somebody_wants_company() { Effect::Freed } else { Effect::None }
    }

    /// Forgets the nodes that are not in `listed`.
    pub(crate) fn keep_nodes(&mut self, listed: &HashSet<String>) -> Effect {
        let gone: Vec<_> = self.nodes.keys().filter(|name| !listed.contains(*name)).cloned().collect();
        let effects = gone.iter().map(|name| self.remove_node(name));
        effects.fold(Effect::None, |all, one| if one == Effect::Freed { one } else { all })
    }

    /// Takes a pod as the watch reports it.
    pub(crate) fn set_pod(&mut self, mut pod: Pod) -> Effect {
        let key = pod.key.clone();
        let mut effect = Effect::None;
        let (mut assumed, mut evicted) = (false, false);
        if let Some(old) = self.pods.remove(&key) {
            self.release(&old.pod);
            // Its condition is written before it is deleted, and what we decided stays until we hear that it failed.
            evicted = old.evicted && pod.uid == old.pod.uid;
            pod.ending |= evicted;
            pod.preempted |= evicted;
            // An older event of a pod whose binding is under way: what we decided stays.
            if old.assumed && pod.node.is_none() && pod.uid == old.pod.uid {
                pod.node.clone_from(&old.pod.node);
                assumed = true;
            } else if old.pod.node != pod.node
                || old.pod.requests != pod.requests
                || old.pod.labels != pod.labels
                || old.pod.ending != pod.ending
            {
                effect = Effect::Freed;
            }
        } else if pod.node.is_some() && self.somebody_wants_company() {
            // Somebody else has placed it: a static pod, another scheduler, its maker.
            effect = Effect::Freed;
        }
        self.take(&pod);
        self.pods.insert(key, Known { pod, assumed, evicted });
        effect
    }

    pub(crate) fn remove_pod(&mut self, key: &PodKey) -> Effect {
        let Some(old) = self.pods.remove(key) else { return Effect::None };
        self.release(&old.pod);
        self.nominations.remove(key);
        if old.pod.node.is_some() { Effect::Freed } else { Effect::None }
    }

    /// The pods that are not in `listed`.
    pub(crate) fn pods_beyond(&self, listed: &HashSet<PodKey>) -> Vec<PodKey> {
        self.pods.keys().filter(|key| !listed.contains(*key)).cloned().collect()
    }

    /// Decides that a pod runs on `node`.
    pub(crate) fn assume(&mut self, key: &PodKey, node: &str) {
        if let Some(mut known) = self.pods.remove(key) {
            known.pod.node = Some(node.to_owned());
            known.assumed = true;
            self.nominations.remove(key);
            self.take(&known.pod);
            self.pods.insert(key.clone(), known);
        }
    }

    /// Takes the decision back, if it is still only ours; true when it did.
    pub(crate) fn forget(&mut self, key: &PodKey, uid: &str) -> bool {
        let Some(mut known) = self.pods.remove(key) else { return false };
        let undone = known.assumed && known.pod.uid == uid;
        if undone {
            self.release(&known.pod);
            known.pod.node = None;
            known.assumed = false;
        }
        self.pods.insert(key.clone(), known);
        undone
    }

    fn take(&mut self, pod: &Pod) {
        let Some(node) = &pod.node else { return };
        let state = self.nodes.entry(node.clone()).or_default();
        if state.placed.insert(pod.key.clone()) {
            state.taken.add(pod);
            self.averse += usize::from(!pod.anti_affinity.is_empty());
        }
    }

    fn release(&mut self, pod: &Pod) {
        let Some(name) = &pod.node else { return };
        let Some(state) = self.nodes.get_mut(name) else { return };
        if state.placed.remove(&pod.key) {
            state.taken.remove(pod);
            self.averse -= usize::from(!pod.anti_affinity.is_empty());
        }
        if state.placed.is_empty() && state.node.is_none() {
            self.nodes.remove(name);
        }
    }
}

#[cfg(test)]
mod tests;
