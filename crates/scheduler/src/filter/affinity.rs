//! `nodeSelector` and node affinity.

use sampan_api::meta::{items, str_of};
use serde_json::Value;

use super::Rejection;
use crate::node::Node;
use crate::pod::Wishes;

/// The selector's labels and one of the required terms have to match.
pub(super) fn check(wishes: &Wishes, node: &Node) -> Result<(), Rejection> {
    let selected = wishes.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
    let required =
        wishes.required_terms.as_ref().is_none_or(|terms| terms.iter().any(|term| matches_term(term, node)));
    if selected && required {
        return Ok(());
    }
    Err(Rejection::permanent("node(s) didn't match Pod's node affinity/selector"))
}

/// Whether a node selector term matches: all its expressions and fields; an empty term matches nothing.
pub(crate) fn matches_term(term: &Value, node: &Node) -> bool {
    let (expressions, fields) = (items(term, "matchExpressions"), items(term, "matchFields"));
    let label = |key: &str| node.labels.get(key).map(String::as_str);
    let field = |key: &str| (key == "metadata.name").then_some(node.name.as_str());
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|expression| holds(expression, label(str_of(expression, "key"))))
        && fields.iter().all(|expression| holds(expression, field(str_of(expression, "key"))))
}

/// Whether one expression holds for the value that the node has.
fn holds(expression: &Value, found: Option<&str>) -> bool {
    let values = items(expression, "values");
    let listed = || values.iter().any(|value| value.as_str() == found);
    let compared = || {
        let wanted: i64 = values.first()?.as_str()?.parse().ok()?;
        Some(found?.parse::<i64>().ok()?.cmp(&wanted))
    };
    match str_of(expression, "operator") {
        "In" => found.is_some() && listed(),
        "NotIn" => found.is_none() || !listed(),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compared().is_some_and(std::cmp::Ordering::is_gt),
        "Lt" => compared().is_some_and(std::cmp::Ordering::is_lt),
        _ => false,
    }
}
