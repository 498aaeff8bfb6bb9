//! Which other pods a pod wants near it, or does not.

use std::collections::BTreeMap;

use sampan_api::meta::{items, str_of};
use sampan_api::selector::{LabelSelector, Operator, Requirement};
use serde_json::{Map, Value};

/// Labels of an object.
pub(crate) type Labels = Map<String, Value>;

/// A term of pod affinity or anti-affinity.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PodTerm {
    selector: LabelSelector,
    /// Where the other pods are; with `namespace_selector` also in those that it selects.
    namespaces: Vec<String>,
    namespace_selector: LabelSelector,
    /// "Near" means nodes with the same value of this label.
    pub(crate) topology_key: String,
}

impl PodTerm {
    /// Reads a term of a pod in `namespace` with these labels. A selector that cannot be read selects nothing:
    /// validation has refused it.
    pub(super) fn read(term: &Value, namespace: &str, labels: &Labels) -> Self {
        let mut selector = selector(term.get("labelSelector"));
        for (field, operator) in [("matchLabelKeys", Operator::In), ("mismatchLabelKeys", Operator::NotIn)] {
            add_own_labels(&mut selector, items(term, field), labels, operator);
        }
        let given = items(term, "namespaces").iter().filter_map(Value::as_str).map(str::to_owned);
        let mut namespaces: Vec<String> = given.collect();
        let namespace_selector = term.get("namespaceSelector").filter(|value| !value.is_null());
        if namespaces.is_empty() && namespace_selector.is_none() {
            namespaces.push(namespace.to_owned());
        }
        Self {
            selector,
            namespaces,
            namespace_selector: self::selector(namespace_selector),
            topology_key: str_of(term, "topologyKey").to_owned(),
        }
    }

    /// Whether it speaks of this pod. `known` has the labels of namespaces.
    pub(crate) fn matches(&self, pod: &super::Pod, known: &BTreeMap<String, Labels>) -> bool {
        let namespace = &pod.key.namespace;
        let here = self.namespaces.contains(namespace)
            || self.namespace_selector.is_empty()
            || self.namespace_selector.matches_labels(known.get(namespace));
        here && self.selector.matches_labels(Some(&pod.labels))
    }
}

/// A `LabelSelector` object; none selects nothing.
pub(crate) fn selector(value: Option<&Value>) -> LabelSelector {
    LabelSelector::from_object(value).unwrap_or_else(|_| LabelSelector::nothing())
}

/// Adds the pod's own values of these labels to a selector (KEP-3243, KEP-3633); labels that it lacks are left out.
pub(super) fn add_own_labels(
    selector: &mut LabelSelector,
    keys: &[Value],
    labels: &Labels,
    operator: Operator,
) {
    for key in keys.iter().filter_map(Value::as_str) {
        let Some(value) = labels.get(key).and_then(Value::as_str) else { continue };
        selector.requirements.push(Requirement {
            key: key.to_owned(),
            operator,
            values: vec![value.to_owned()],
        });
    }
}
