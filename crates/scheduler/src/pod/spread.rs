//! How evenly a pod and its like shall be spread.

use sampan_api::meta::{items, str_of};
use sampan_api::selector::{LabelSelector, Operator};
use serde_json::Value;

use super::term::{self, Labels};

/// One of `topologySpreadConstraints`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SpreadConstraint {
    pub(crate) selector: LabelSelector,
    pub(crate) topology_key: String,
    /// By how many pods domains may differ.
    pub(crate) max_skew: i64,
    /// Fewer domains count as if there was an empty one.
    pub(crate) min_domains: i64,
    /// `DoNotSchedule`, as opposed to `ScheduleAnyway`.
    pub(crate) required: bool,
    /// Count only nodes that the pod's node affinity allows.
    pub(crate) honors_affinity: bool,
    /// Count only nodes whose taints the pod tolerates.
    pub(crate) honors_taints: bool,
}

impl SpreadConstraint {
    pub(super) fn read(constraint: &Value, labels: &Labels) -> Self {
        let mut selector = term::selector(constraint.get("labelSelector"));
        term::add_own_labels(&mut selector, items(constraint, "matchLabelKeys"), labels, Operator::In);
        let number = |field: &str| constraint.get(field).and_then(Value::as_i64);
        Self {
            selector,
            topology_key: str_of(constraint, "topologyKey").to_owned(),
            max_skew: number("maxSkew").unwrap_or(1),
            min_domains: number("minDomains").unwrap_or(1),
            required: str_of(constraint, "whenUnsatisfiable") != "ScheduleAnyway",
            honors_affinity: str_of(constraint, "nodeAffinityPolicy") != "Ignore",
            honors_taints: str_of(constraint, "nodeTaintsPolicy") == "Honor",
        }
    }
}
