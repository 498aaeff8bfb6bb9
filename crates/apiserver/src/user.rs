//! Who makes a request: what authentication found out and authorization and admission judge by.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The group of everybody who proved who they are.
pub(crate) const AUTHENTICATED: &str = "system:authenticated";
/// The group of those who did not.
pub(crate) const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The name of a user who did not prove anything.
pub(crate) const ANONYMOUS: &str = "system:anonymous";
/// The group that may do everything.
pub(crate) const MASTERS: &str = "system:masters";
/// The group of all kubelets.
pub(crate) const NODES: &str = "system:nodes";
/// What a kubelet's user name begins with; the node's name follows.
pub(crate) const NODE_PREFIX: &str = "system:node:";

/// A user as Kubernetes sees one (authentication.k8s.io/v1 UserInfo).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserInfo {
    /// The name that identifies the user, e.g. `system:node:a`.
    pub username: String,
    /// Tells users with the same name apart over time; often empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// The groups the user belongs to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// What else the authenticator says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user with these groups; `system:authenticated` is added.
    pub fn new(username: impl Into<String>, groups: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().map(Into::into).collect();
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Self { username: username.into(), uid: String::new(), groups, extra: BTreeMap::new() }
    }

    /// The administrator: a member of `system:masters`.
    pub fn admin() -> Self {
        Self::new("system:admin", [MASTERS])
    }

    /// The kubelet of a node.
    pub fn node(name: &str) -> Self {
        Self::new(format!("{NODE_PREFIX}{name}"), [NODES])
    }

    /// The API server itself.
    pub fn apiserver() -> Self {
        Self::new("system:apiserver", [MASTERS])
    }

    /// Who did not prove anything.
    pub fn anonymous() -> Self {
        Self { username: ANONYMOUS.to_owned(), groups: vec![UNAUTHENTICATED.to_owned()], ..Self::default() }
    }

    /// Whether the user is in a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|have| have == group)
    }

    /// The node whose kubelet this is, if it is one.
    pub fn node_name(&self) -> Option<&str> {
        self.username.strip_prefix(NODE_PREFIX).filter(|name| !name.is_empty() && self.is_in(NODES))
    }
}
