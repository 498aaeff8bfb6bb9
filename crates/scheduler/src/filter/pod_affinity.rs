//! Pod affinity and anti-affinity, in both directions: the new pod's wishes about those that are there, and theirs
//! about it.

use std::collections::{BTreeMap, BTreeSet};

use super::Rejection;
use crate::cluster::Cluster;
use crate::node::Node;
use crate::pod::{Pod, PodKey, PodTerm, Wishes};

/// A label of nodes and one of its values: a rack, a zone, a host.
type Domain = (String, String);

/// Where the pods are that matter to one new pod.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    /// How many pods that match all affinity terms are in each domain.
    wanted: BTreeMap<Domain, i64>,
    /// Whether the pod would do as its own company: the first of a group that wants to be together.
    alone_will_do: bool,
    /// Domains with pods that the new one does not want near it.
    unwanted: BTreeSet<Domain>,
    /// Domains with pods that do not want the new one near them.
    unwelcome: BTreeSet<Domain>,
    /// What preferences add to each domain.
    pub(crate) scores: BTreeMap<Domain, i64>,
}

fn domain(term: &PodTerm, node: &Node) -> Option<Domain> {
    let value = node.labels.get(&term.topology_key)?;
    Some((term.topology_key.clone(), value.clone()))
}

impl Picture {
    /// Looks at all placed pods but those in `without`.
    pub(crate) fn new(cluster: &Cluster, pod: &Pod, wishes: &Wishes, without: &BTreeSet<PodKey>) -> Self {
        let mut picture = Self::default();
        let indifferent =
            wishes.affinity.is_empty() && pod.anti_affinity.is_empty() && wishes.preferred_pods.is_empty();
        if indifferent && !cluster.has_anti_affinity() {
            return picture;
        }
        let namespaces = cluster.namespaces();
        let matches = |term: &PodTerm, other: &Pod| term.matches(other, namespaces);
        picture.alone_will_do = wishes.affinity.iter().all(|term| matches(term, pod));
        for (other, node) in cluster.placed().filter(|(other, _)| !without.contains(&other.key)) {
            if !wishes.affinity.is_empty() && wishes.affinity.iter().all(|term| matches(term, other)) {
                for domain in wishes.affinity.iter().filter_map(|term| domain(term, node)) {
                    *picture.wanted.entry(domain).or_default() += 1;
                }
            }
            let theirs = pod.anti_affinity.iter().filter(|term| matches(term, other));
            picture.unwanted.extend(theirs.filter_map(|term| domain(term, node)));
            let ours = other.anti_affinity.iter().filter(|term| matches(term, pod));
            picture.unwelcome.extend(ours.filter_map(|term| domain(term, node)));
            for (weight, term) in wishes.preferred_pods.iter().filter(|(_, term)| matches(term, other)) {
                if let Some(domain) = domain(term, node) {
                    *picture.scores.entry(domain).or_default() += weight;
                }
            }
        }
        picture
    }
}

/// What the new pod wants near it is there, what it does not is not, and nobody minds it.
pub(super) fn check(picture: &Picture, pod: &Pod, wishes: &Wishes, node: &Node) -> Result<(), Rejection> {
    let domains: Option<Vec<Domain>> = wishes.affinity.iter().map(|term| domain(term, node)).collect();
    let near = domains.is_some_and(|domains| {
        domains.iter().all(|domain| picture.wanted.get(domain).is_some_and(|count| *count > 0))
            || picture.wanted.is_empty() && picture.alone_will_do
    });
    if !near {
        return Err(Rejection::permanent("node(s) didn't match pod affinity rules"));
    }
    let in_one_of =
        |domains: &BTreeSet<Domain>| domains.iter().any(|(key, value)| node.labels.get(key) == Some(value));
    if !pod.anti_affinity.is_empty() && in_one_of(&picture.unwanted) {
        return Err(Rejection::preemptible("node(s) didn't match pod anti-affinity rules"));
    }
    if in_one_of(&picture.unwelcome) {
        return Err(Rejection::preemptible("node(s) didn't satisfy existing pods anti-affinity rules"));
    }
    Ok(())
}
