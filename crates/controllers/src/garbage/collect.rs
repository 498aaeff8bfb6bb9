//! What happens to one object: it is read anew, its owners are looked up, and then it is deleted, let go or left alone.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::{ObjectMeta, PartialObjectMeta};
use sampan_api::scheme;
use serde_json::json;
use tokio::sync::mpsc;

use super::graph::{FOREGROUND, Node, ORPHAN, SharedGraph, has_finalizer};
use crate::kinds::{self, or_gone};
use crate::reconcile::Next;

#[derive(Clone)]
pub(super) struct Collector {
    client: Client,
    graph: SharedGraph,
    suspects: mpsc::UnboundedSender<String>,
}

/// The owners of an object, by what they mean for it.
#[derive(Default)]
struct Owners {
    /// There, and to stay: keep the object.
    solid: usize,
    /// Not there.
    dangling: Vec<String>,
    /// Being deleted, and waiting for the object to go first.
    waiting: Vec<String>,
}

type Meta = kube::Api<PartialObjectMeta>;

impl Collector {
    pub(super) fn new(client: Client, graph: SharedGraph, suspects: mpsc::UnboundedSender<String>) -> Self {
        Self { client, graph, suspects }
    }

    /// Brings one object to where its owners want it.
    pub(super) async fn attempt(&self, uid: &str) -> Result<Next, kube::Error> {
        let Some(node) = self.graph.lock().node(uid).cloned() else { return Ok(Next::Wait) };
        let api = self.api(&node);
        let live = api.get_opt(&node.key.name).await?.map(|object| object.metadata);
        let Some(live) = live.filter(|live| live.uid.as_deref() == Some(uid)) else {
            return Ok(Next::Wait);
        };
        if live.deletion_timestamp.is_some() {
            if has_finalizer(&live, ORPHAN) {
                self.orphan(uid, &api, &live).await?;
            } else if has_finalizer(&live, FOREGROUND) {
                self.foreground(uid, &api, &live).await?;
            }
            return Ok(Next::Wait);
        }
        let references = live.owner_references.clone().unwrap_or_default();
        if references.is_empty() {
            return Ok(Next::Wait);
        }
        let owners = self.owners(&references, &node.key.namespace).await?;
        if owners.solid > 0 {
            let mut lost = owners.dangling;
            lost.extend(owners.waiting);
            if !lost.is_empty() {
                let kept = references.into_iter().filter(|owner| !lost.contains(&owner.uid)).collect();
                set_owners(&api, &live, kept).await?;
            }
            return Ok(Next::Wait);
        }
        let has_dependents = !self.graph.lock().dependents(uid).is_empty();
        let policy = if !owners.waiting.is_empty() && has_dependents || has_finalizer(&live, FOREGROUND) {
            PropagationPolicy::Foreground
        } else if has_finalizer(&live, ORPHAN) {
            PropagationPolicy::Orphan
        } else {
            PropagationPolicy::Background
        };
        let preconditions =
            Preconditions { uid: Some(uid.to_owned()), resource_version: live.resource_version.clone() };
        let parameters = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        or_gone(api.delete(&node.key.name, &parameters).await)?;
        Ok(Next::Wait)
    }

    fn api(&self, node: &Node) -> Meta {
        kinds::api(&self.client, node.resource, &node.key.namespace)
    }

    /// Looks the owners up. One of a kind that is not known is taken for solid: nothing is deleted on a guess.
    async fn owners(&self, references: &[OwnerReference], namespace: &str) -> Result<Owners, kube::Error> {
        let mut owners = Owners::default();
        for reference in references {
            let resource = scheme::find_api_version(&reference.api_version, &reference.kind);
            let Some(resource) = resource.filter(|resource| !resource.namespaced || !namespace.is_empty())
            else {
                owners.solid += 1;
                continue;
            };
            let api: Meta = kinds::api(&self.client, resource, namespace);
            let found = api.get_opt(&reference.name).await?.map(|object| object.metadata);
            match found.filter(|found| found.uid.as_ref() == Some(&reference.uid)) {
                None => owners.dangling.push(reference.uid.clone()),
                Some(found) if found.deletion_timestamp.is_some() && has_finalizer(&found, FOREGROUND) => {
                    owners.waiting.push(reference.uid.clone());
                }
                Some(_) => owners.solid += 1,
            }
        }
        Ok(owners)
    }

    /// Lets an owner go once nothing blocks it; until then its dependents are deleted.
    async fn foreground(&self, uid: &str, api: &Meta, live: &ObjectMeta) -> Result<(), kube::Error> {
        let blocking = self.graph.lock().blocking(uid);
        if blocking.is_empty() {
            return remove_finalizer(api, live, FOREGROUND).await;
        }
        for (dependent, node) in blocking {
            if !(node.deleting && node.foreground) {
                let _collector_ended = self.suspects.send(dependent);
            }
        }
        Ok(())
    }

    /// Takes the owner out of its dependents, then lets it go.
    async fn orphan(&self, uid: &str, api: &Meta, live: &ObjectMeta) -> Result<(), kube::Error> {
        let dependents = self.graph.lock().dependents(uid);
        for (dependent, node) in dependents {
            let of_dependent = self.api(&node);
            let found = of_dependent.get_opt(&node.key.name).await?.map(|object| object.metadata);
            if let Some(found) = found.filter(|found| found.uid.as_ref() == Some(&dependent)) {
                let references = found.owner_references.clone().unwrap_or_default();
                let kept = references.into_iter().filter(|owner| owner.uid != uid).collect();
                set_owners(&of_dependent, &found, kept).await?;
            }
        }
        remove_finalizer(api, live, ORPHAN).await
    }
}

/// Writes the owners of an object, if it is still the one that was read.
async fn set_owners(api: &Meta, live: &ObjectMeta, owners: Vec<OwnerReference>) -> Result<(), kube::Error> {
    patch(api, live, json!({"ownerReferences": owners})).await
}

async fn remove_finalizer(api: &Meta, live: &ObjectMeta, finalizer: &str) -> Result<(), kube::Error> {
    let finalizers = live.finalizers.iter().flatten().filter(|found| *found != finalizer);
    patch(api, live, json!({"finalizers": finalizers.collect::<Vec<_>>()})).await
}

async fn patch(api: &Meta, live: &ObjectMeta, mut metadata: serde_json::Value) -> Result<(), kube::Error> {
    metadata["uid"] = json!(live.uid);
    metadata["resourceVersion"] = json!(live.resource_version);
    let name = live.name.as_deref().unwrap_or_default();
    let patch = Patch::Merge(json!({"metadata": metadata}));
    or_gone(api.patch(name, &PatchParams::default(), &patch).await)?;
    Ok(())
}
