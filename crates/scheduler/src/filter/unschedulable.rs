//! Nodes that were cordoned.

use sampan_api::taints::tolerated;
use serde_json::json;

use super::Rejection;
use crate::node::Node;
use crate::pod::Wishes;

/// A cordoned node takes only pods that tolerate the taint which stands for it.
pub(super) fn check(wishes: &Wishes, node: &Node) -> Result<(), Rejection> {
    let taint = json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"});
    if node.unschedulable && !tolerated(&wishes.tolerations, &taint) {
        return Err(Rejection::permanent("node(s) were unschedulable"));
    }
    Ok(())
}
