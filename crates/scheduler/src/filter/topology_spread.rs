//! Topology spread constraints: pods of a kind differ by at most `maxSkew` between domains.

use std::collections::{BTreeMap, BTreeSet};

use super::{Rejection, affinity, taints};
use crate::cluster::Cluster;
use crate::node::Node;
use crate::pod::{Pod, PodKey, SpreadConstraint, Wishes};

/// For each constraint: the pods that it counts, by the value of its label.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    counts: Vec<BTreeMap<String, i64>>,
}

impl Picture {
    /// Looks at all placed pods but those in `without`.
    pub(crate) fn new(cluster: &Cluster, pod: &Pod, wishes: &Wishes, without: &BTreeSet<PodKey>) -> Self {
        let mut picture = Self { counts: vec![BTreeMap::new(); wishes.spread.len()] };
        if wishes.spread.is_empty() {
            return picture;
        }
        // Nodes that lack one of the labels belong to no domain at all.
        let complete = |node: &Node, required: bool| {
            let same_kind = wishes.spread.iter().filter(|constraint| constraint.required == required);
            same_kind.into_iter().all(|constraint| node.labels.contains_key(&constraint.topology_key))
        };
        let counted = |constraint: &SpreadConstraint, node: &Node| {
            complete(node, constraint.required)
                && (!constraint.honors_affinity || affinity::check(wishes, node).is_ok())
                && (!constraint.honors_taints || taints::check(wishes, node).is_ok())
        };
        for (constraint, counts) in wishes.spread.iter().zip(&mut picture.counts) {
            for (node, _) in cluster.nodes().filter(|(node, _)| counted(constraint, node)) {
                if let Some(value) = node.labels.get(&constraint.topology_key) {
                    counts.entry(value.clone()).or_default();
                }
            }
            for (other, node) in cluster.placed() {
                let same = other.key.namespace == pod.key.namespace
                    && !other.ending
                    && !without.contains(&other.key)
                    && constraint.selector.matches_labels(Some(&other.labels));
                if same
                    && counted(constraint, node)
                    && let Some(count) =
                        node.labels.get(&constraint.topology_key).and_then(|value| counts.get_mut(value))
                {
                    *count += 1;
                }
            }
        }
        picture
    }

    /// How many of the pod's like are in the domains of a node, over the constraints that only prefer: fewer are
    /// better.
    pub(crate) fn crowd(&self, wishes: &Wishes, node: &Node) -> i64 {
        let preferred = wishes.spread.iter().zip(&self.counts).filter(|(constraint, _)| !constraint.required);
        preferred
            .map(|(constraint, counts)| match node.labels.get(&constraint.topology_key) {
                Some(value) => counts.get(value).copied().unwrap_or(0),
                // No domain is worse than any.
                None => i64::from(u32::MAX),
            })
            .sum()
    }
}

/// With the new pod no domain may have more than `maxSkew` pods above the emptiest.
pub(super) fn check(picture: &Picture, pod: &Pod, wishes: &Wishes, node: &Node) -> Result<(), Rejection> {
    for (constraint, counts) in wishes.spread.iter().zip(&picture.counts).filter(|(c, _)| c.required) {
        let Some(value) = node.labels.get(&constraint.topology_key) else {
            return Err(Rejection::permanent(
                "node(s) didn't match pod topology spread constraints (missing required label)",
            ));
        };
        let few = i64::try_from(counts.len()).unwrap_or(i64::MAX) < constraint.min_domains;
        let least = if few { 0 } else { counts.values().min().copied().unwrap_or(0) };
        let itself = i64::from(constraint.selector.matches_labels(Some(&pod.labels)));
        let here = counts.get(value).copied().unwrap_or(0);
        if here + itself - least > constraint.max_skew {
            return Err(Rejection::preemptible("node(s) didn't match pod topology spread constraints"));
        }
    }
    Ok(())
}
