//! Whether a pod may run on a node. Pure; one file per question, asked in upstream's order.

mod affinity;
mod pod_affinity;
mod ports;
mod resources;
mod taints;
#[cfg(test)]
pub(crate) mod tests;
mod topology_spread;
mod unschedulable;

use std::collections::BTreeSet;

pub(crate) use affinity::matches_term;
pub(crate) use taints::intolerable_preferences;

use crate::cluster::{Cluster, Taken};
use crate::node::Node;
use crate::pod::{Pod, PodKey, Wishes};

/// Why a pod may not run on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// The reasons, as events show them.
    pub(crate) reasons: Vec<String>,
    /// Whether the node would do if other pods left it.
    pub(crate) preemptible: bool,
}

impl Rejection {
    fn permanent(reason: &str) -> Self {
        Self { reasons: vec![reason.to_owned()], preemptible: false }
    }

    fn preemptible(reason: &str) -> Self {
        Self { reasons: vec![reason.to_owned()], preemptible: true }
    }
}

/// A pod that wants a node, and what has to be known of all the others to answer for each node.
pub(crate) struct Question<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) pod: &'a Pod,
    pub(crate) wishes: &'a Wishes,
    /// Pods that count as gone: what would be, if they were evicted.
    without: BTreeSet<PodKey>,
    pub(crate) company: pod_affinity::Picture,
    pub(crate) spread: topology_spread::Picture,
}

impl<'a> Question<'a> {
    /// The question as things are.
    pub(crate) fn new(cluster: &'a Cluster, pod: &'a Pod, wishes: &'a Wishes) -> Self {
        Self::without(cluster, pod, wishes, BTreeSet::new())
    }

    /// The question as things would be without some pods.
    pub(crate) fn without(
        cluster: &'a Cluster,
        pod: &'a Pod,
        wishes: &'a Wishes,
        without: BTreeSet<PodKey>,
    ) -> Self {
        let company = pod_affinity::Picture::new(cluster, pod, wishes, &without);
        let spread = topology_spread::Picture::new(cluster, pod, wishes, &without);
        Self { cluster, pod, wishes, without, company, spread }
    }

    /// What is taken on a node for this pod: by those that are there, and by those that will be first.
    pub(crate) fn taken(&self, node: &Node) -> Taken {
        self.cluster.taken(node, self.pod, &self.without)
    }

    /// The first filter that rejects decides; its reasons are the node's.
    pub(crate) fn check(&self, node: &Node) -> Result<(), Rejection> {
        unschedulable::check(self.wishes, node)?;
        taints::check(self.wishes, node)?;
        affinity::check(self.wishes, node)?;
        let taken = self.taken(node);
        ports::check(self.pod, &taken)?;
        resources::check(self.pod, node, &taken)?;
        topology_spread::check(&self.spread, self.pod, self.wishes, node)?;
        pod_affinity::check(&self.company, self.pod, self.wishes, node)
    }
}
