//! RBAC's rules: what one grants, and whether one covers another.

use serde::{Deserialize, Deserializer, Serialize};

use super::Attributes;

/// A rule of a Role or ClusterRole (rbac.authorization.k8s.io/v1 PolicyRule).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyRule {
    /// What may be done; `*` is everything.
    #[serde(deserialize_with = "or_empty")]
    pub verbs: Vec<String>,
    /// To resources of which groups; `*` is all, the empty string the core group.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_empty")]
    pub api_groups: Vec<String>,
    /// To which resources: `pods`, `pods/log`, `*/scale`, `*`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_empty")]
    pub resources: Vec<String>,
    /// To objects of which names; empty is all.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_empty")]
    pub resource_names: Vec<String>,
    /// To which paths that are no resources; a trailing `*` is any continuation.
    #[serde(
        rename = "nonResourceURLs",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "or_empty"
    )]
    pub non_resource_urls: Vec<String>,
}

/// Objects written by others hold `null` for an empty list.
fn or_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default())
}

const ALL: &str = "*";

fn holds(list: &[String], value: &str) -> bool {
    list.iter().any(|item| item == ALL || item == value)
}

impl PolicyRule {
    /// Whether the rule grants what is asked.
    pub fn allows(&self, attributes: &Attributes<'_>) -> bool {
        if !holds(&self.verbs, attributes.verb) {
            return false;
        }
        if !attributes.is_resource {
            return self.non_resource_urls.iter().any(|rule| url_matches(rule, attributes.path));
        }
        holds(&self.api_groups, attributes.group)
            && self
                .resources
                .iter()
                .any(|rule| resource_matches(rule, attributes.resource, attributes.subresource))
            && (self.resource_names.is_empty()
                || self.resource_names.iter().any(|name| name == attributes.name))
    }

    /// Whether the rule grants everything that `other`, a rule made by [`PolicyRule::break_down`], grants.
    pub(super) fn covers(&self, other: &PolicyRule) -> bool {
        let all = |have: &[String], want: &[String]| want.iter().all(|item| holds(have, item));
        if !all(&self.verbs, &other.verbs) {
            return false;
        }
        if !other.non_resource_urls.is_empty() {
            return other.non_resource_urls.iter().all(|url| {
                self.non_resource_urls.iter().any(|have| {
                    have == url || have.strip_suffix('*').is_some_and(|prefix| url.starts_with(prefix))
                })
            });
        }
        let resources = other.resources.iter().all(|want| {
            holds(&self.resources, want)
                || want.split_once('/').is_some_and(|(_, sub)| {
                    self.resources.iter().any(|have| have.strip_prefix("*/") == Some(sub))
                })
        });
        let names = if other.resource_names.is_empty() {
            self.resource_names.is_empty()
        } else {
            self.resource_names.is_empty()
                || other.resource_names.iter().all(|n| self.resource_names.contains(n))
        };
        resources && names && all(&self.api_groups, &other.api_groups)
    }

    /// The rule as rules of one verb, one group and resource, one name or path each.
    pub(super) fn break_down(&self) -> Vec<PolicyRule> {
        let mut out = Vec::new();
        let one = |text: &String| vec![text.clone()];
        for verb in &self.verbs {
            for url in &self.non_resource_urls {
                out.push(Self { verbs: one(verb), non_resource_urls: one(url), ..Self::default() });
            }
        }
        for group in &self.api_groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let rule = Self {
                        verbs: one(verb),
                        api_groups: one(group),
                        resources: one(resource),
                        ..Self::default()
                    };
                    if self.resource_names.is_empty() {
                        out.push(rule);
                    } else {
                        out.extend(
                            self.resource_names
                                .iter()
                                .map(|name| Self { resource_names: one(name), ..rule.clone() }),
                        );
                    }
                }
            }
        }
        out
    }

    /// The rule on one line, as messages show it.
    pub(super) fn compact(&self) -> String {
        let parts = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let parts: Vec<String> = parts
            .iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(name, list)| format!("{name}:{}", quoted(list)))
            .collect();
        format!("{{{}}}", parts.join(", "))
    }
}

/// Go's `%q` of a list of strings: `["a" "b"]`.
pub(super) fn quoted(list: &[String]) -> String {
    let items: Vec<String> = list.iter().map(|item| format!("{item:?}")).collect();
    format!("[{}]", items.join(" "))
}

fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == ALL {
        return true;
    }
    match rule.split_once('/') {
        None => subresource.is_empty() && rule == resource,
        Some((parent, sub)) => sub == subresource && (parent == resource || parent == ALL),
    }
}

fn url_matches(rule: &str, path: &str) -> bool {
    rule == ALL || rule == path || rule.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> PolicyRule {
        PolicyRule {
            verbs: strings(verbs),
            api_groups: strings(groups),
            resources: strings(resources),
            resource_names: strings(names),
            ..PolicyRule::default()
        }
    }

    fn ask<'a>(verb: &'a str, resource: &'a str, subresource: &'a str, name: &'a str) -> Attributes<'a> {
        Attributes { is_resource: true, verb, resource, subresource, name, ..Attributes::default() }
    }

    #[test]
    fn a_rule_grants_a_resource_and_its_subresources_apart() {
        let pods = rule(&["get"], &[""], &["pods"], &[]);
        assert!(pods.allows(&ask("get", "pods", "", "a")));
        assert!(!pods.allows(&ask("get", "pods", "log", "a")));
        assert!(!pods.allows(&ask("list", "pods", "", "")));
        assert!(rule(&["get"], &[""], &["pods/log"], &[]).allows(&ask("get", "pods", "log", "a")));
        assert!(rule(&["get"], &[""], &["*/log"], &[]).allows(&ask("get", "pods", "log", "a")));
        assert!(rule(&["*"], &["*"], &["*"], &[]).allows(&ask("get", "pods", "log", "a")));
    }

    #[test]
    fn names_restrict_also_lists_by_name() {
        let one = rule(&["get", "list"], &[""], &["secrets"], &["a"]);
        assert!(one.allows(&ask("get", "secrets", "", "a")));
        assert!(!one.allows(&ask("get", "secrets", "", "b")));
        assert!(!one.allows(&ask("list", "secrets", "", "")));
    }

    #[test]
    fn paths_match_whole_or_by_trailing_star() {
        let mut rule = PolicyRule { verbs: strings(&["get"]), ..PolicyRule::default() };
        rule.non_resource_urls = strings(&["/healthz", "/api/*"]);
        let ask = |path| Attributes { verb: "get", path, ..Attributes::default() };
        assert!(rule.allows(&ask("/healthz")));
        assert!(rule.allows(&ask("/api/v1")));
        assert!(!rule.allows(&ask("/healthz/ping")));
        assert!(!rule.allows(&ask("/apis")));
    }

    #[test]
    fn lists_that_are_null_read_as_empty() {
        let rule: PolicyRule =
            serde_json::from_value(serde_json::json!({"verbs": ["get"], "resourceNames": null})).unwrap();
        assert!(rule.resource_names.is_empty());
    }
}
