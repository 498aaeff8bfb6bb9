//! The scheduler's picture of the cluster: nodes, what is taken on them, and the pods that wait.
//!
//! A placement is *assumed* as soon as it is decided, before the API knows it; the next pod then sees it. The watch
//! confirms it later, or a failed binding takes it back.

use std::collections::{BTreeMap, HashMap, HashSet};

use sampan_api::Quantity;
use sampan_api::resources::ResourceList;

use crate::node::Node;
use crate::pod::{HostPort, Pod, PodKey};

#[derive(Debug, Default)]
pub(crate) struct Cluster {
    /// By name; sorted, so that decisions do not depend on chance. Without [`NodeState::node`]: pods name a node
    /// that is not there (yet).
    nodes: BTreeMap<String, NodeState>,
    pods: HashMap<PodKey, Known>,
}

/// A node and what is taken on it.
#[derive(Debug, Default)]
pub(crate) struct NodeState {
    pub(crate) node: Option<Node>,
    pub(crate) requested: ResourceList,
    pub(crate) pods: i64,
    pub(crate) ports: Vec<HostPort>,
}

#[derive(Debug)]
struct Known {
    pod: Pod,
    /// Whether the node is our decision, which the API has not confirmed.
    assumed: bool,
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

    pub(crate) fn remove_node(&mut self, name: &str) {
        if let Some(state) = self.nodes.get_mut(name) {
            state.node = None;
            if state.pods == 0 {
                self.nodes.remove(name);
            }
        }
    }

    /// Forgets the nodes that are not in `listed`.
    pub(crate) fn keep_nodes(&mut self, listed: &HashSet<String>) {
        let gone: Vec<_> = self.nodes.keys().filter(|name| !listed.contains(*name)).cloned().collect();
        gone.iter().for_each(|name| self.remove_node(name));
    }

    /// Takes a pod as the watch reports it.
    pub(crate) fn set_pod(&mut self, mut pod: Pod) -> Effect {
        let key = pod.key.clone();
        let mut effect = Effect::None;
        let mut assumed = false;
        if let Some(old) = self.pods.remove(&key) {
            self.release(&old.pod);
            // An older event of a pod whose binding is under way: what we decided stays.
            if old.assumed && pod.node.is_none() && pod.uid == old.pod.uid {
                pod.node.clone_from(&old.pod.node);
                assumed = true;
            } else if old.pod.node != pod.node || old.pod.requests != pod.requests {
                effect = Effect::Freed;
            }
        }
        self.take(&pod);
        self.pods.insert(key, Known { pod, assumed });
        effect
    }

    pub(crate) fn remove_pod(&mut self, key: &PodKey) -> Effect {
        let Some(old) = self.pods.remove(key) else { return Effect::None };
        self.release(&old.pod);
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
        sampan_api::resources::add(&mut state.requested, &pod.requests);
        state.pods += 1;
        state.ports.extend(pod.ports.iter().cloned());
    }

    fn release(&mut self, pod: &Pod) {
        let Some(name) = &pod.node else { return };
        let Some(state) = self.nodes.get_mut(name) else { return };
        for (resource, quantity) in &pod.requests {
            let requested = state.requested.entry(resource.clone()).or_insert(Quantity::ZERO);
            *requested -= *quantity;
        }
        state.pods -= 1;
        for port in &pod.ports {
            if let Some(at) = state.ports.iter().position(|taken| taken == port) {
                state.ports.swap_remove(at);
            }
        }
        if state.pods == 0 && state.node.is_none() {
            self.nodes.remove(name);
        }
    }
}

#[cfg(test)]
mod tests;
