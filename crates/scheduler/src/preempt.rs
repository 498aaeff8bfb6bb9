//! Who is evicted for a pod of higher priority that fits nowhere. Pure; [`Scheduler`](crate::scheduler) does it.
//!
//! Of each node that would do without its less important pods as many of them stay as can; the node that loses
//! least is chosen: fewest victims that break a PodDisruptionBudget, then lowest highest priority of a victim, then
//! lowest sum, then fewest, then the youngest. A budget is a wish here, as upstream: where nothing else helps, it breaks.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::budget;
use crate::cluster::Cluster;
use crate::filter::Question;
use crate::node::Node;
use crate::pod::{Pod, PodKey, Wishes};

/// A node and the pods that have to go from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sacrifice {
    pub(crate) node: String,
    pub(crate) victims: Vec<PodKey>,
}

/// Why nobody is evicted, in upstream's words; `None` when the pod may have others evicted.
///
/// A node that is being made free for it is worth waiting for only while it is among `candidates`: a cordoned one is not.
pub(crate) fn ineligible(
    cluster: &Cluster,
    pod: &Pod,
    wishes: &Wishes,
    candidates: &[&Node],
) -> Option<&'static str> {
    if !wishes.preempts {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let nominated = wishes.nominated.as_deref().or_else(|| cluster.nominated(&pod.key))?;
    if !candidates.iter().any(|node| node.name == nominated) {
        return None;
    }
    let leaving = cluster.placed_on(nominated).any(|other| other.preempted && other.priority < pod.priority);
    leaving.then_some("not eligible due to terminating pod on the nominated node.")
}

/// The best node to make free among `candidates` (those that other pods' leaving can help), if there is one.
pub(crate) fn choose<'a>(
    cluster: &Cluster,
    pod: &Pod,
    wishes: &Wishes,
    candidates: impl Iterator<Item = &'a Node>,
) -> Option<Sacrifice> {
    let options = candidates.filter_map(|node| {
        let Victims { pods: victims, breaches } = victims(cluster, pod, wishes, node)?;
        let worst = victims.iter().map(|victim| victim.priority).max()?;
        let sum: i64 = victims.iter().map(|victim| victim.priority.saturating_add(1 << 31)).sum();
        let oldest_of_worst =
            victims.iter().filter(|victim| victim.priority == worst).map(|victim| victim.created).min();
        let cost = (breaches, worst, sum, victims.len(), Reverse(oldest_of_worst));
        let victims = victims.into_iter().map(|victim| victim.key.clone()).collect();
        Some((cost, Sacrifice { node: node.name.clone(), victims }))
    });
    options.min_by(|(one, _), (other, _)| one.cmp(other)).map(|(_, sacrifice)| sacrifice)
}

/// The pods that have to leave a node.
struct Victims<'a> {
    pods: Vec<&'a Pod>,
    /// How many of them a PodDisruptionBudget would have stay.
    breaches: usize,
}

/// The pods that have to leave a node, if that helps at all.
fn victims<'a>(cluster: &'a Cluster, pod: &Pod, wishes: &Wishes, node: &Node) -> Option<Victims<'a>> {
    let mut lesser: Vec<&Pod> =
        cluster.placed_on(&node.name).filter(|other| other.priority < pod.priority).collect();
    if lesser.is_empty() {
        return None;
    }
    let fits = |without: &BTreeSet<PodKey>| {
        Question::without(cluster, pod, wishes, without.clone()).check(node).is_ok()
    };
    let mut without: BTreeSet<PodKey> = lesser.iter().map(|other| other.key.clone()).collect();
    if !fits(&without) {
        return None;
    }
    // Those that a budget protects are the first to stay; else the most important, and among those the oldest.
    lesser.sort_by_key(|other| (Reverse(other.priority), other.created));
    let (mut protected, mut others) = budget::split(lesser, cluster.budgets().values());
    let mut leaves = |other: &&Pod| {
        without.remove(&other.key);
        let stays = fits(&without);
        if !stays {
            without.insert(other.key.clone());
        }
        !stays
    };
    protected.retain(&mut leaves);
    others.retain(leaves);
    let breaches = protected.len();
    protected.append(&mut others);
    Some(Victims { pods: protected, breaches })
}
