//! The static registry of every built-in kind: what discovery lists, what REST serves, how names map to kinds.
//!
//! One row a resource; everything else in this crate looks kinds up here, so that a kind cannot exist in one
//! place and be missing in another.

mod table;
#[cfg(test)]
mod tests;

/// The verb sets that occur, in the (sorted) order in which discovery lists them.
pub mod verbs {
    /// Everything a stored resource can do.
    pub const ALL: &[&str] =
        &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    /// Stored, but no deletion of a whole collection (namespaces).
    pub const NO_COLLECTION: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
    /// Only reading (component statuses).
    pub const READ: &[&str] = &["get", "list"];
    /// Reviews and bindings: posted, never stored.
    pub const CREATE: &[&str] = &["create"];
    /// One object's subresource that is read and written.
    pub const SUBRESOURCE: &[&str] = &["get", "patch", "update"];
    /// A subresource that is only written whole (`namespaces/finalize`).
    pub const UPDATE: &[&str] = &["update"];
    /// A subresource that is only read (`pods/log`).
    pub const GET: &[&str] = &["get"];
    /// Streams (`exec`, `attach`, `portforward`).
    pub const CONNECT: &[&str] = &["create", "get"];
    /// HTTP proxies.
    pub const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];
}

/// One part of a resource under its own path, `/status` for instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subresource {
    /// Last path segment, e.g. `status`.
    pub name: &'static str,
    /// Group of the kind that is sent and answered ("" = core).
    pub group: &'static str,
    /// Version of that kind.
    pub version: &'static str,
    /// That kind, e.g. `Scale`.
    pub kind: &'static str,
    /// Verbs, as discovery lists them.
    pub verbs: &'static [&'static str],
}

/// One resource of one group and version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    /// API group; "" is the core group.
    pub group: &'static str,
    /// Version within the group.
    pub version: &'static str,
    /// Kind of the objects, e.g. `Pod`.
    pub kind: &'static str,
    /// Name in paths, e.g. `pods`.
    pub plural: &'static str,
    /// Singular name, e.g. `pod`.
    pub singular: &'static str,
    /// What kubectl users may type instead.
    pub short_names: &'static [&'static str],
    /// Groups of resources, e.g. `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Verbs, as discovery lists them.
    pub verbs: &'static [&'static str],
    /// Parts with paths of their own.
    pub subresources: &'static [Subresource],
    /// Upstream's hash of the stored version; "" for what is never stored.
    pub storage_version_hash: &'static str,
}

impl Resource {
    /// `v1` or `apps/v1`, as in an object's `apiVersion`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods` or `deployments.apps`, as in error messages.
    pub fn group_resource(&self) -> String {
        group_qualified(self.plural, self.group)
    }

    /// `Pod` or `Deployment.apps`, as in error messages.
    pub fn group_kind(&self) -> String {
        group_qualified(self.kind, self.group)
    }

    /// `PodList`.
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Whether objects of this kind are kept in the store (reviews and bindings are not).
    pub fn is_stored(&self) -> bool {
        self.verbs.contains(&"list") && self.kind != "ComponentStatus"
    }

    /// The resource under whose group, version and plural objects are stored. events.k8s.io Events share the core
    /// Events' storage, and horizontal pod autoscalers are stored as v2; [`crate::conversion`] converts.
    pub fn storage(&self) -> &'static Resource {
        let (group, version) = match (self.group, self.kind) {
            ("events.k8s.io", "Event") => ("", "v1"),
            ("autoscaling", "HorizontalPodAutoscaler") => ("autoscaling", "v2"),
            _ => (self.group, self.version),
        };
        find(group, version, self.plural).expect("the storage resource is in the table")
    }
}

fn group_qualified(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

/// Every resource, in upstream's order of group preference.
pub fn resources() -> &'static [Resource] {
    table::RESOURCES
}

/// The resource at `/apis/{group}/{version}/{plural}` (group "" = core).
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    resources().iter().find(|r| r.plural == plural && r.group == group && r.version == version)
}

/// The resource of objects with this kind.
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
    resources().iter().find(|r| r.kind == kind && r.group == group && r.version == version)
}

/// The resource for an object's `apiVersion` and `kind`.
pub fn find_api_version(api_version: &str, kind: &str) -> Option<&'static Resource> {
    let (group, version) = split_api_version(api_version);
    find_kind(group, version, kind)
}

/// Splits `apps/v1` into group and version; `v1` has the group "".
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// The groups ("" first) with their versions, the preferred one first, in the order of preference.
pub fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&'static str, Vec<&'static str>)> = Vec::new();
    for r in resources() {
        match groups.iter_mut().find(|(g, _)| *g == r.group) {
            Some((_, versions)) if versions.contains(&r.version) => {}
            Some((_, versions)) => versions.push(r.version),
            None => groups.push((r.group, vec![r.version])),
        }
    }
    groups
}
