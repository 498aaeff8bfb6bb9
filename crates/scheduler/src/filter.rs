//! Whether a pod may run on a node. Pure; one file per question, asked in upstream's order.

mod affinity;
mod ports;
mod resources;
mod taints;
#[cfg(test)]
pub(crate) mod tests;
mod unschedulable;

pub(crate) use affinity::matches_term;
pub(crate) use taints::intolerable_preferences;

use crate::cluster::NodeState;
use crate::node::Node;
use crate::pod::{Pod, Wishes};

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
}

/// The first filter that rejects decides; its reasons are the node's.
pub(crate) fn check(pod: &Pod, wishes: &Wishes, node: &Node, state: &NodeState) -> Result<(), Rejection> {
    unschedulable::check(wishes, node)?;
    taints::check(wishes, node)?;
    affinity::check(wishes, node)?;
    ports::check(pod, state)?;
    resources::check(pod, node, state)
}
