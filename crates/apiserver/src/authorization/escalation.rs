//! Nobody may grant by a role or a binding what they do not hold themselves.
//!
//! The exceptions are upstream's: members of `system:masters`, the verb `escalate` on the role, and for bindings
//! the verb `bind` on the role that they name.

use std::collections::BTreeSet;

use serde::Deserialize as _;
use serde_json::Value;

use super::rbac::RoleRef;
use super::rules::quoted;
use super::{Attributes, Authorization, MissingRole, PolicyRule};
use crate::user::{MASTERS, UserInfo};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Why a role or binding may not be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Escalation {
    /// It grants more than its author holds: the answer is 403 with this text after `... is forbidden: `.
    #[error("{0}")]
    Forbidden(String),
    /// The binding's role does not exist: the answer is 404.
    #[error(transparent)]
    MissingRole(#[from] MissingRole),
}

/// Checks a write of a Role, ClusterRole, RoleBinding or ClusterRoleBinding (`resource` is the plural) by `user`.
/// `old` is the object as it was, for updates; other resources pass.
///
/// # Errors
/// [`Escalation`], when the write must be refused.
pub fn check(
    authorizer: &Authorization,
    user: &UserInfo,
    resource: &str,
    namespace: &str,
    new: &Value,
    old: Option<&Value>,
) -> Result<(), Escalation> {
    if user.is_in(MASTERS) {
        return Ok(());
    }
    let name = new["metadata"]["name"].as_str().unwrap_or_default();
    let may = |verb, resource, namespace, name| {
        let attributes = Attributes {
            is_resource: true,
            verb,
            group: GROUP,
            version: "v1",
            resource,
            namespace,
            name,
            ..Attributes::default()
        };
        authorizer.allows(user, &attributes)
    };
    match resource {
        "roles" | "clusterroles" => {
            if old.is_some_and(|old| {
                old["rules"] == new["rules"] && old["aggregationRule"] == new["aggregationRule"]
            }) || may("escalate", resource, namespace, name)
            {
                return Ok(());
            }
            if has_aggregation(new) && old.is_none_or(|old| old["aggregationRule"] != new["aggregationRule"])
            {
                let everything = full_authority();
                if confirm(authorizer, user, namespace, &everything).is_err() {
                    let text = "must have cluster-admin privileges to use the aggregationRule";
                    return Err(Escalation::Forbidden(text.to_owned()));
                }
            }
            let rules = new["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
            let rules: Vec<PolicyRule> =
                rules.iter().filter_map(|rule| PolicyRule::deserialize(rule).ok()).collect();
            confirm(authorizer, user, namespace, &rules)
        }
        "rolebindings" | "clusterrolebindings" => {
            if old.is_some_and(|old| old["subjects"] == new["subjects"] && old["roleRef"] == new["roleRef"]) {
                return Ok(());
            }
            let role = RoleRef::deserialize(&new["roleRef"]).unwrap_or_default();
            let plural = if role.kind == "Role" { "roles" } else { "clusterroles" };
            if may("bind", plural, namespace, &role.name) {
                return Ok(());
            }
            // Read from storage, where roles go by their plural.
            let rules = authorizer
                .resolve(&role, namespace)
                .map_err(|missing| MissingRole { kind: plural.to_owned(), ..missing })?;
            confirm(authorizer, user, namespace, &rules)
        }
        _ => Ok(()),
    }
}

fn has_aggregation(role: &Value) -> bool {
    role["aggregationRule"]["clusterRoleSelectors"].as_array().is_some_and(|list| !list.is_empty())
}

fn full_authority() -> Vec<PolicyRule> {
    let all = || vec!["*".to_owned()];
    vec![
        PolicyRule { verbs: all(), api_groups: all(), resources: all(), ..PolicyRule::default() },
        PolicyRule { verbs: all(), non_resource_urls: all(), ..PolicyRule::default() },
    ]
}

/// Whether the user holds all of `rules` in the namespace.
fn confirm(
    authorizer: &Authorization,
    user: &UserInfo,
    namespace: &str,
    rules: &[PolicyRule],
) -> Result<(), Escalation> {
    let (held, unresolved) = authorizer.rules_for(user, namespace);
    let missing: Vec<PolicyRule> = rules
        .iter()
        .flat_map(PolicyRule::break_down)
        .filter(|wanted| !held.iter().any(|rule| rule.covers(wanted)))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let texts: BTreeSet<String> = merged(missing).iter().map(PolicyRule::compact).collect();
    let mut message = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.username,
        quoted(&user.groups),
        texts.into_iter().collect::<Vec<_>>().join("\n")
    );
    if !unresolved.is_empty() {
        message.push_str(&format!("; resolution errors: [{}]", unresolved.join(", ")));
    }
    Err(Escalation::Forbidden(message))
}

/// Rules of one verb each that differ in the verb alone become one.
fn merged(rules: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut out: Vec<PolicyRule> = Vec::new();
    for rule in rules {
        let same = |have: &&mut PolicyRule| {
            rule.non_resource_urls.is_empty()
                && have.non_resource_urls.is_empty()
                && have.api_groups == rule.api_groups
                && have.resources == rule.resources
                && have.resource_names == rule.resource_names
        };
        match out.iter_mut().find(same) {
            Some(have) if !have.verbs.contains(&rule.verbs[0]) => have.verbs.extend(rule.verbs),
            Some(_) => {}
            None => out.push(rule),
        }
    }
    out
}
