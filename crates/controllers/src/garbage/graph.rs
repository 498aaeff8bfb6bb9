//! Who owns whom. Pure; keeps only objects that have owners or wait for dependents.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::ObjectMeta;
use sampan_api::Resource;

use crate::feed::Key;

/// Keeps an owner until its dependents have lost it.
pub(super) const ORPHAN: &str = "orphan";
/// Keeps an owner until its dependents are deleted.
pub(super) const FOREGROUND: &str = "foregroundDeletion";

/// The graph, shared by the watch and the collector.
#[derive(Clone, Default)]
pub(super) struct SharedGraph(Arc<Mutex<Graph>>);

impl SharedGraph {
    pub(super) fn lock(&self) -> MutexGuard<'_, Graph> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An object that has owners or waits for dependents.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) resource: &'static Resource,
    pub(super) key: Key,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) deleting: bool,
    /// Whether it waits for its dependents to be deleted.
    pub(super) foreground: bool,
    /// Whether it waits for its dependents to be let go.
    orphans: bool,
}

impl Node {
    fn waits(&self) -> bool {
        self.deleting && (self.foreground || self.orphans)
    }
}

/// Whether an object has a finalizer.
pub(super) fn has_finalizer(metadata: &ObjectMeta, finalizer: &str) -> bool {
    metadata.finalizers.as_ref().is_some_and(|finalizers| finalizers.iter().any(|found| found == finalizer))
}

#[derive(Debug, Default)]
pub(super) struct Graph {
    /// By uid.
    nodes: HashMap<String, Node>,
    /// Owner's uid -> the uids of its dependents.
    dependents: HashMap<String, HashSet<String>>,
    /// The uids of all objects that are there.
    present: HashSet<String>,
}

impl Graph {
    pub(super) fn node(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// The dependents of an object.
    pub(super) fn dependents(&self, owner: &str) -> Vec<(String, Node)> {
        let uids = self.dependents.get(owner).into_iter().flatten();
        uids.filter_map(|uid| Some((uid.clone(), self.nodes.get(uid)?.clone()))).collect()
    }

    /// The dependents without whose end a foreground deletion does not end.
    pub(super) fn blocking(&self, owner: &str) -> Vec<(String, Node)> {
        let blocks = |node: &Node| {
            node.owners.iter().any(|found| found.uid == owner && found.block_owner_deletion == Some(true))
        };
        let mut dependents = self.dependents(owner);
        dependents.retain(|(_, node)| blocks(node));
        dependents
    }

    /// An object is there; names what has to be looked at therefore.
    pub(super) fn set(&mut self, resource: &'static Resource, metadata: &ObjectMeta) -> Vec<String> {
        let Some(uid) = metadata.uid.clone() else { return Vec::new() };
        self.present.insert(uid.clone());
        let before = self.unlink(&uid);
        let deleting = metadata.deletion_timestamp.is_some();
        let node = Node {
            resource,
            key: Key::of(metadata),
            owners: metadata.owner_references.clone().unwrap_or_default(),
            deleting,
            foreground: has_finalizer(metadata, FOREGROUND),
            orphans: has_finalizer(metadata, ORPHAN),
        };
        let mut found = Vec::new();
        // An owner may wait for a reference that was just removed.
        for owner in before.iter().flat_map(|before| &before.owners) {
            let waits = self.nodes.get(&owner.uid).is_some_and(Node::waits);
            if waits && !node.owners.iter().any(|kept| kept.uid == owner.uid) {
                found.push(owner.uid.clone());
            }
        }
        if node.owners.is_empty() && !node.waits() {
            return found;
        }
        for owner in &node.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
        self.nodes.insert(uid.clone(), node);
        if self.is_suspect(&uid) {
            found.push(uid);
        }
        found
    }

    /// An object is gone; names what has to be looked at therefore.
    pub(super) fn gone(&mut self, uid: &str) -> Vec<String> {
        self.present.remove(uid);
        let owners = self.unlink(uid).into_iter().flat_map(|node| node.owners);
        let mut found: Vec<_> = owners.map(|owner| owner.uid).collect();
        found.retain(|owner| self.nodes.get(owner).is_some_and(Node::waits));
        found.extend(self.dependents.get(uid).into_iter().flatten().cloned());
        found
    }

    /// Everything that has to be looked at, as far as is known.
    pub(super) fn suspects(&self) -> Vec<String> {
        self.nodes.keys().filter(|uid| self.is_suspect(uid)).cloned().collect()
    }

    fn is_suspect(&self, uid: &str) -> bool {
        self.nodes.get(uid).is_some_and(|node| {
            let waits = |owner: &OwnerReference| self.nodes.get(&owner.uid).is_some_and(Node::waits);
            node.waits() || node.owners.iter().any(|owner| !self.present.contains(&owner.uid) || waits(owner))
        })
    }

    fn unlink(&mut self, uid: &str) -> Option<Node> {
        let node = self.nodes.remove(uid)?;
        for owner in &node.owners {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;

    fn metadata(uid: &str, owners: &[(&str, bool)], finalizers: &[&str]) -> ObjectMeta {
        let owners = owners.iter().map(|(uid, block)| OwnerReference {
            uid: (*uid).into(),
            block_owner_deletion: Some(*block),
            ..OwnerReference::default()
        });
        let deleted = (!finalizers.is_empty())
            .then_some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        ObjectMeta {
            uid: Some(uid.into()),
            owner_references: Some(owners.collect()),
            finalizers: Some(finalizers.iter().map(|finalizer| (*finalizer).into()).collect()),
            deletion_timestamp: deleted,
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn dependents_are_looked_at_when_their_owner_goes() {
        let pods = kinds::find("", "pods");
        let mut graph = Graph::default();
        assert!(graph.set(pods, &metadata("owner", &[], &[])).is_empty());
        assert!(graph.set(pods, &metadata("child", &[("owner", true)], &[])).is_empty());
        assert_eq!(graph.gone("owner"), ["child"]);
        assert_eq!(graph.set(pods, &metadata("late", &[("owner", true)], &[])), ["late"]);
        assert_eq!(graph.gone("child"), Vec::<String>::new());
        assert_eq!(graph.suspects(), ["late"]);
        graph.set(pods, &metadata("late", &[], &[]));
        assert!(graph.suspects().is_empty() && graph.nodes.is_empty() && graph.dependents.is_empty());
    }

    #[test]
    fn owner_in_foreground_deletion_waits_for_those_that_block_it() {
        let pods = kinds::find("", "pods");
        let mut graph = Graph::default();
        graph.set(pods, &metadata("owner", &[], &[]));
        graph.set(pods, &metadata("blocks", &[("owner", true)], &[]));
        graph.set(pods, &metadata("does-not", &[("owner", false)], &[]));
        assert_eq!(graph.set(pods, &metadata("owner", &[], &[FOREGROUND])), ["owner"]);
        let blocking: Vec<_> = graph.blocking("owner").into_iter().map(|(uid, _)| uid).collect();
        assert_eq!(blocking, ["blocks"]);
        assert_eq!(graph.gone("blocks"), ["owner"]);
        assert!(graph.blocking("owner").is_empty());
    }

    #[test]
    fn owner_that_orphans_is_looked_at_when_it_lost_a_dependent() {
        let pods = kinds::find("", "pods");
        let mut graph = Graph::default();
        graph.set(pods, &metadata("child", &[("owner", true)], &[]));
        assert_eq!(graph.set(pods, &metadata("owner", &[], &[ORPHAN])), ["owner"]);
        assert_eq!(graph.set(pods, &metadata("child", &[], &[])), ["owner"]);
    }
}
