//! Role-based access control: indexes of roles and bindings by subject, and their evaluation.
//!
//! The indexes hold only what decisions need and are changed by the store's events ([`super::Mirror`]), so that a
//! decision reads memory alone.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::{Attributes, PolicyRule};
use crate::user::UserInfo;

/// What a binding points to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleRef {
    /// `rbac.authorization.k8s.io`.
    pub api_group: String,
    /// `Role` or `ClusterRole`.
    pub kind: String,
    /// The role's name.
    pub name: String,
}

/// Whom a binding grants to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subject {
    /// `User`, `Group` or `ServiceAccount`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// A ServiceAccount's namespace.
    pub namespace: String,
}

impl Subject {
    fn describe(&self) -> String {
        match self.kind.as_str() {
            "ServiceAccount" => format!("{} \"{}/{}\"", self.kind, self.name, self.namespace),
            _ => format!("{} {:?}", self.kind, self.name),
        }
    }
}

/// A binding, in the form in which it is asked for.
#[derive(Debug)]
struct Binding {
    namespace: String,
    name: String,
    role: RoleRef,
    subjects: Vec<Subject>,
}

/// How an allowed request was allowed, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) allowed: bool,
    pub(crate) reason: String,
}

/// Bindings of one scope by whom they grant to; the pair says which subject of the binding it was.
#[derive(Debug, Default)]
struct Scope {
    users: HashMap<String, Vec<(Arc<Binding>, usize)>>,
    groups: HashMap<String, Vec<(Arc<Binding>, usize)>>,
    bindings: HashMap<String, Arc<Binding>>,
}

impl Scope {
    fn insert(&mut self, binding: Binding) {
        self.remove(&binding.name.clone());
        let binding = Arc::new(binding);
        for (index, subject) in binding.subjects.iter().enumerate() {
            let entry = (binding.clone(), index);
            match subject.kind.as_str() {
                "User" => self.users.entry(subject.name.clone()).or_default().push(entry),
                "Group" => self.groups.entry(subject.name.clone()).or_default().push(entry),
                "ServiceAccount" => {
                    // A RoleBinding's ServiceAccount without a namespace is meant in the binding's own.
                    let namespace =
                        if subject.namespace.is_empty() { &binding.namespace } else { &subject.namespace };
                    if !namespace.is_empty() {
                        let user = format!("system:serviceaccount:{namespace}:{}", subject.name);
                        self.users.entry(user).or_default().push(entry);
                    }
                }
                _ => {}
            }
        }
        self.bindings.insert(binding.name.clone(), binding);
    }

    fn remove(&mut self, name: &str) {
        let Some(old) = self.bindings.remove(name) else { return };
        for map in [&mut self.users, &mut self.groups] {
            map.retain(|_, list| {
                list.retain(|(binding, _)| !Arc::ptr_eq(binding, &old));
                !list.is_empty()
            });
        }
    }

    fn of<'a>(&'a self, user: &'a UserInfo) -> impl Iterator<Item = &'a (Arc<Binding>, usize)> {
        self.users
            .get(&user.username)
            .into_iter()
            .chain(user.groups.iter().filter_map(|group| self.groups.get(group)))
            .flatten()
    }
}

/// A ClusterRole's aggregation, as far as it concerns others.
#[derive(Debug, Default, Clone)]
pub(super) struct ClusterRole {
    pub(super) rules: Arc<[PolicyRule]>,
    pub(super) labels: Value,
    /// `aggregationRule.clusterRoleSelectors`, if there is one.
    pub(super) selectors: Option<Vec<Value>>,
}

/// All roles and bindings.
#[derive(Debug, Default)]
pub(super) struct Rbac {
    cluster_roles: HashMap<String, ClusterRole>,
    roles: HashMap<(String, String), Arc<[PolicyRule]>>,
    cluster: Scope,
    namespaces: HashMap<String, Scope>,
}

fn rules_of(object: &Value) -> Arc<[PolicyRule]> {
    let rules = object["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
    rules.iter().filter_map(|rule| PolicyRule::deserialize(rule).ok()).collect()
}

fn binding_of(namespace: &str, name: &str, object: &Value) -> Binding {
    let subjects = object["subjects"].as_array().map(Vec::as_slice).unwrap_or_default();
    Binding {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        role: RoleRef::deserialize(&object["roleRef"]).unwrap_or_default(),
        subjects: subjects.iter().filter_map(|subject| Subject::deserialize(subject).ok()).collect(),
    }
}

impl Rbac {
    /// Takes in what became of an object; `None` is its deletion.
    pub(super) fn apply(&mut self, resource: &str, namespace: &str, name: &str, object: Option<&Value>) {
        match (resource, object) {
            ("clusterroles", Some(object)) => {
                let role = ClusterRole {
                    rules: rules_of(object),
                    labels: object["metadata"]["labels"].clone(),
                    selectors: object["aggregationRule"]["clusterRoleSelectors"].as_array().cloned(),
                };
                self.cluster_roles.insert(name.to_owned(), role);
            }
            ("clusterroles", None) => {
                self.cluster_roles.remove(name);
            }
            ("roles", Some(object)) => {
                self.roles.insert((namespace.to_owned(), name.to_owned()), rules_of(object));
            }
            ("roles", None) => {
                self.roles.remove(&(namespace.to_owned(), name.to_owned()));
            }
            ("clusterrolebindings", Some(object)) => self.cluster.insert(binding_of("", name, object)),
            ("clusterrolebindings", None) => self.cluster.remove(name),
            ("rolebindings", Some(object)) => {
                let scope = self.namespaces.entry(namespace.to_owned()).or_default();
                scope.insert(binding_of(namespace, name, object));
            }
            ("rolebindings", None) => {
                if let Some(scope) = self.namespaces.get_mut(namespace) {
                    scope.remove(name);
                    if scope.bindings.is_empty() {
                        self.namespaces.remove(namespace);
                    }
                }
            }
            _ => {}
        }
    }

    pub(super) fn cluster_roles(&self) -> &HashMap<String, ClusterRole> {
        &self.cluster_roles
    }

    /// The rules that a role reference means in a namespace; the error is upstream's text for a missing role.
    pub(super) fn resolve(&self, role: &RoleRef, namespace: &str) -> Result<Arc<[PolicyRule]>, MissingRole> {
        let found = match role.kind.as_str() {
            "Role" => self.roles.get(&(namespace.to_owned(), role.name.clone())).cloned(),
            "ClusterRole" => self.cluster_roles.get(&role.name).map(|role| role.rules.clone()),
            _ => None,
        };
        found.ok_or_else(|| MissingRole { kind: role.kind.clone(), name: role.name.clone() })
    }

    /// Calls `visit` for each binding of the user in the namespace (and the cluster) until it returns false.
    fn visit(
        &self,
        user: &UserInfo,
        namespace: &str,
        mut visit: impl FnMut(&Binding, &Subject, Result<Arc<[PolicyRule]>, MissingRole>) -> bool,
    ) {
        let scope = if namespace.is_empty() { None } else { self.namespaces.get(namespace) };
        let all = self.cluster.of(user).chain(scope.into_iter().flat_map(|scope| scope.of(user)));
        for (binding, subject) in all {
            let rules = self.resolve(&binding.role, namespace);
            if !visit(binding, &binding.subjects[*subject], rules) {
                return;
            }
        }
    }

    /// Decides by roles and bindings.
    pub(super) fn authorize(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Verdict {
        let mut reason = None;
        let mut missing = Vec::new();
        self.visit(user, attributes.namespace, |binding, subject, rules| match rules {
            Ok(rules) => {
                if !rules.iter().any(|rule| rule.allows(attributes)) {
                    return true;
                }
                let name = if binding.namespace.is_empty() {
                    format!("ClusterRoleBinding {:?}", binding.name)
                } else {
                    format!("RoleBinding \"{}/{}\"", binding.name, binding.namespace)
                };
                reason = Some(format!(
                    "RBAC: allowed by {name} of {} {:?} to {}",
                    binding.role.kind,
                    binding.role.name,
                    subject.describe()
                ));
                false
            }
            Err(error) => {
                missing.push(error.to_string());
                true
            }
        });
        match reason {
            Some(reason) => Verdict { allowed: true, reason },
            None => {
                let reason = match missing.as_slice() {
                    [] => String::new(),
                    [one] => format!("RBAC: {one}"),
                    many => format!("RBAC: [{}]", many.join(", ")),
                };
                Verdict { allowed: false, reason }
            }
        }
    }

    /// Everything that the user may do in the namespace, and what could not be found out.
    pub(super) fn rules_for(&self, user: &UserInfo, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        let (mut all, mut missing) = (Vec::new(), Vec::new());
        self.visit(user, namespace, |_, _, rules| {
            match rules {
                Ok(rules) => all.extend(rules.iter().cloned()),
                Err(error) => missing.push(error.to_string()),
            }
            true
        });
        (all, missing)
    }
}

/// A binding names a role that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}.rbac.authorization.k8s.io {name:?} not found", .kind.to_lowercase())]
pub struct MissingRole {
    /// `Role` or `ClusterRole`; the plural where upstream's message has that.
    pub kind: String,
    /// Its name.
    pub name: String,
}
