//! Taints that keep pods away.

use sampan_api::meta::str_of;
use sampan_api::taints::{first_untolerated, tolerated};

use super::Rejection;
use crate::node::Node;
use crate::pod::Wishes;

/// Every `NoSchedule` and `NoExecute` taint has to be tolerated.
pub(super) fn check(wishes: &Wishes, node: &Node) -> Result<(), Rejection> {
    match first_untolerated(&node.taints, &wishes.tolerations, &["NoSchedule", "NoExecute"]) {
        Some(_) => Err(Rejection::permanent("node(s) had untolerated taint(s)")),
        None => Ok(()),
    }
}

/// How many `PreferNoSchedule` taints the pod does not tolerate: fewer are better.
pub(crate) fn intolerable_preferences(wishes: &Wishes, node: &Node) -> usize {
    let soft = node.taints.iter().filter(|taint| str_of(taint, "effect") == "PreferNoSchedule");
    soft.filter(|taint| !tolerated(&wishes.tolerations, taint)).count()
}
