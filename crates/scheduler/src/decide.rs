//! One decision: the best node for a pod, or why there is none and who would have to go. Pure.

use crate::cluster::Cluster;
use crate::filter::{Question, Rejection};
use crate::pod::{Pod, Wishes};
use crate::preempt::{self, Sacrifice};
use crate::score::score;

/// Why there is no node.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// One for each node.
    pub(crate) rejections: Vec<Rejection>,
    /// Why nobody may be evicted for the pod.
    pub(crate) ineligible: Option<&'static str>,
    /// Who is to be evicted for it.
    pub(crate) sacrifice: Option<Sacrifice>,
}

/// The name of the node on which the pod should run.
pub(crate) fn decide(cluster: &Cluster, pod: &Pod, wishes: &Wishes) -> Result<String, Refusal> {
    let question = Question::new(cluster, pod, wishes);
    let mut rejections = Vec::new();
    let mut candidates = Vec::new();
    let mut best = None;
    for (node, _) in cluster.nodes() {
        match question.check(node) {
            Ok(()) => {
                let score = score(&question, node);
                if best.as_ref().is_none_or(|(highest, _)| score > *highest) {
                    best = Some((score, node.name.as_str()));
                }
            }
            Err(rejection) => {
                if rejection.preemptible {
                    candidates.push(node);
                }
                rejections.push(rejection);
            }
        }
    }
    if let Some((_, name)) = best {
        return Ok(name.to_owned());
    }
    let ineligible = preempt::ineligible(cluster, pod, wishes, &candidates);
    let sacrifice = match ineligible {
        None => preempt::choose(cluster, pod, wishes, candidates.into_iter()),
        Some(_) => None,
    };
    Err(Refusal { rejections, ineligible, sacrifice })
}

#[cfg(test)]
mod tests;
