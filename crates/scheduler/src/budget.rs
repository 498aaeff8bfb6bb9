//! PodDisruptionBudgets, as far as preemption looks at them: which victims would break one.

use std::collections::BTreeSet;

use kube::core::DynamicObject;
use sampan_api::selector::LabelSelector;
use serde_json::Value;

use crate::pod::{Pod, selector};

/// A PodDisruptionBudget.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Budget {
    namespace: String,
    selector: LabelSelector,
    /// How many more of its pods may be disrupted now (`status.disruptionsAllowed`).
    allowed: i64,
    /// Pods whose eviction the API server has counted already (`status.disruptedPods`).
    counted: BTreeSet<String>,
}

impl Budget {
    /// Reads a budget.
    pub(crate) fn read(object: &DynamicObject) -> Self {
        let data = &object.data;
        let counted = data.pointer("/status/disruptedPods").and_then(Value::as_object);
        Self {
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            selector: selector(data.pointer("/spec/selector")),
            allowed: data.pointer("/status/disruptionsAllowed").and_then(Value::as_i64).unwrap_or(0),
            counted: counted.into_iter().flatten().map(|(name, _)| name.clone()).collect(),
        }
    }

    /// Whether the eviction of this pod counts. As upstream's scheduler has it, an empty selector protects nobody from
    /// preemption.
    fn covers(&self, pod: &Pod) -> bool {
        self.namespace == pod.key.namespace
            && !self.selector.is_empty()
            && self.selector.matches_labels(Some(&pod.labels))
            && !self.counted.contains(&pod.key.name)
    }
}

/// Splits pods into those whose eviction breaks a budget, when they go in this order, and the others.
pub(crate) fn split<'a, 'b>(
    pods: Vec<&'a Pod>,
    budgets: impl Iterator<Item = &'b Budget>,
) -> (Vec<&'a Pod>, Vec<&'a Pod>) {
    let mut left: Vec<(&Budget, i64)> = budgets.map(|budget| (budget, budget.allowed)).collect();
    pods.into_iter().partition(|pod| {
        let mut breaks = false;
        for (_, allowed) in left.iter_mut().filter(|(budget, _)| budget.covers(pod)) {
            *allowed -= 1;
            breaks |= *allowed < 0;
        }
        breaks
    })
}
