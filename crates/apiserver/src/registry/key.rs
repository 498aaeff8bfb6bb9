//! Where objects stand in the store: `/registry/[group/]plural/[namespace/]name`, as upstream lays them out.

use sampan_api::Resource;

/// What all keys begin with.
pub const ROOT: &str = "/registry/";

/// The prefix of a resource's keys, with its slash at the end. `resource` is a storage resource.
pub fn prefix(resource: &Resource) -> String {
    if resource.group.is_empty() {
        format!("{ROOT}{}/", resource.plural)
    } else {
        format!("{ROOT}{}/{}/", resource.group, resource.plural)
    }
}

/// What follows the prefix: `namespace/name` or `name`. Also the key of the caches.
pub fn suffix(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

/// An object's whole key.
pub fn key(resource: &Resource, namespace: &str, name: &str) -> String {
    let namespace = if resource.namespaced { namespace } else { "" };
    format!("{}{}", prefix(resource), suffix(namespace, name))
}

/// The prefix of the keys in a namespace; of all keys when it is empty or the resource has none.
pub fn namespace_prefix(resource: &Resource, namespace: &str) -> String {
    let mut prefix = prefix(resource);
    if resource.namespaced && !namespace.is_empty() {
        prefix.push_str(namespace);
        prefix.push('/');
    }
    prefix
}
