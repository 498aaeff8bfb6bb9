//! Which of the nodes that would do is the best.

use sampan_api::Quantity;
use serde_json::Value;

use crate::filter::{Question, intolerable_preferences, matches_term};
use crate::node::Node;

/// The larger, the better. Soft taints weigh most, then soft spreading, then preferred
/// affinity, then what is left of the node: upstream's weights (3, 2, 2, 1) in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Score {
    taints: i64,
    /// How few of the pod's like are near, for soft spread constraints.
    lonely: i64,
    preference: i64,
    /// The mean of the shares of cpu and memory that stay free, 0 to 100: upstream's "least allocated".
    free: i64,
    /// Fewer pods, when nothing else tells nodes apart.
    pods: i64,
}

/// How well a node suits a pod that may run on it.
pub(crate) fn score(question: &Question<'_>, node: &Node) -> Score {
    let (pod, wishes, state) = (question.pod, question.wishes, question.taken(node));
    let preference = wishes
        .preferred_terms
        .iter()
        .filter(|preferred| preferred.get("preference").is_some_and(|term| matches_term(term, node)));
    let near = question.company.scores.iter();
    let company: i64 =
        near.filter(|((key, value), _)| node.labels.get(key) == Some(value)).map(|(_, weight)| *weight).sum();
    let weight = |preferred: &Value| preferred.get("weight").and_then(Value::as_i64).unwrap_or(0);
    let free = |name: &str| {
        let amount = |list: &sampan_api::resources::ResourceList| list.get(name).map_or(0, Quantity::nanos);
        let (all, taken) = (amount(&node.allocatable), amount(&state.requested) + amount(&pod.requests));
        if all <= 0 { 0 } else { i64::try_from((all - taken).max(0) * 100 / all).unwrap_or(0) }
    };
    Score {
        taints: -i64::try_from(intolerable_preferences(wishes, node)).unwrap_or(i64::MAX),
        lonely: -question.spread.crowd(wishes, node),
        preference: preference.map(weight).sum::<i64>() + company,
        free: (free("cpu") + free("memory")) / 2,
        pods: -state.pods,
    }
}
