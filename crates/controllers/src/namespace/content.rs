//! What is in a namespace: deleting it, and counting what is left.

use std::collections::BTreeMap;

use kube::Client;
use kube::api::{DeleteParams, ListParams};
use kube::core::{DynamicObject, PartialObjectMeta};
use sampan_api::{Resource, scheme};

use crate::kinds;

/// What is left in a namespace after a round.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Remaining {
    /// How many objects, by `plural.group` as upstream writes it: `pods.`, `deployments.apps`.
    instances: BTreeMap<String, usize>,
    finalizers: BTreeMap<String, usize>,
    failures: Vec<String>,
}

impl Remaining {
    pub(super) fn is_empty(&self) -> bool {
        self.instances.is_empty() && self.failures.is_empty()
    }

    pub(super) fn instances(&self) -> Option<String> {
        let texts = self
            .instances
            .iter()
            .map(|(resource, count)| format!("{resource} has {count} resource instances"));
        sentence("Some resources are remaining", texts)
    }

    pub(super) fn finalizers(&self) -> Option<String> {
        let texts = self
            .finalizers
            .iter()
            .map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"));
        sentence("Some content in the namespace has finalizers remaining", texts)
    }

    pub(super) fn failures(&self) -> Option<String> {
        sentence(
            "Failed to delete all resource types",
            [self.failures.join(", ")].into_iter().filter(|failures| !failures.is_empty()),
        )
    }

    fn add(&mut self, resource: &Resource, objects: &[PartialObjectMeta]) {
        if objects.is_empty() {
            return;
        }
        self.instances.insert(format!("{}.{}", resource.plural, resource.group), objects.len());
        for finalizer in objects.iter().filter_map(|object| object.metadata.finalizers.as_ref()).flatten() {
            *self.finalizers.entry(finalizer.clone()).or_insert(0) += 1;
        }
    }
}

fn sentence(begin: &str, texts: impl Iterator<Item = String>) -> Option<String> {
    let texts: Vec<_> = texts.collect();
    (!texts.is_empty()).then(|| format!("{begin}: {}", texts.join(", ")))
}

/// The resources that a namespace may hold, each once.
fn resources() -> impl Iterator<Item = &'static Resource> {
    scheme::resources().iter().filter(|resource| {
        resource.namespaced
            && std::ptr::eq(resource.storage(), *resource)
            && resource.verbs.contains(&"list")
            && resource.verbs.contains(&"deletecollection")
    })
}

/// Deletes everything that is in the namespace; says what did not go at once. A kind that fails does not keep the
/// others. Pods go first, and everything else stays until they are gone: a pod must not go on without the rules, the
/// settings and the account that it was started with (KEP-5080).
pub(super) async fn delete(client: &Client, namespace: &str) -> Remaining {
    let mut remaining = Remaining::default();
    let (pods, others): (Vec<_>, Vec<_>) = resources().partition(|resource| is_pods(resource));
    delete_each(client, namespace, &pods, &mut remaining).await;
    if remaining.is_empty() {
        delete_each(client, namespace, &others, &mut remaining).await;
    }
    remaining
}

fn is_pods(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "pods"
}

async fn delete_each(
    client: &Client,
    namespace: &str,
    resources: &[&'static Resource],
    remaining: &mut Remaining,
) {
    for resource in resources {
        match delete_all(client, resource, namespace).await {
            Ok(left) => remaining.add(resource, &left),
            Err(error) => remaining.failures.push(format!("{}: {error}", resource.group_resource())),
        }
    }
}

/// Deletes all objects of one kind, unless there are none.
async fn delete_all(
    client: &Client,
    resource: &Resource,
    namespace: &str,
) -> Result<Vec<PartialObjectMeta>, kube::Error> {
    let metadata = kinds::api::<PartialObjectMeta>(client, resource, namespace);
    if metadata.list(&ListParams::default().limit(1)).await?.items.is_empty() {
        return Ok(Vec::new());
    }
    let objects = kinds::api::<DynamicObject>(client, resource, namespace);
    objects.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
    Ok(metadata.list(&ListParams::default()).await?.items)
}

#[cfg(test)]
mod tests {
    use kube::core::ObjectMeta;

    use super::*;

    fn object(finalizers: &[&str]) -> PartialObjectMeta {
        let finalizers = finalizers.iter().map(|finalizer| (*finalizer).to_owned()).collect();
        let metadata = ObjectMeta { finalizers: Some(finalizers), ..ObjectMeta::default() };
        PartialObjectMeta { types: None, metadata, _phantom: std::marker::PhantomData }
    }

    #[test]
    fn what_is_left_is_told_in_upstreams_words() {
        let mut remaining = Remaining::default();
        assert_eq!((remaining.instances(), remaining.finalizers(), remaining.failures()), (None, None, None));
        remaining.add(kinds::find("", "pods"), &[object(&[]), object(&["example.com/keep"])]);
        remaining.add(kinds::find("apps", "deployments"), &[object(&["example.com/keep"])]);
        assert_eq!(
            remaining.instances().as_deref(),
            Some(
                "Some resources are remaining: deployments.apps has 1 resource instances, pods. has 2 resource instances"
            )
        );
        assert_eq!(
            remaining.finalizers().as_deref(),
            Some(
                "Some content in the namespace has finalizers remaining: example.com/keep in 2 resource instances"
            )
        );
    }

    #[test]
    fn each_namespaced_kind_is_looked_at_once() {
        let names: Vec<_> = resources().map(Resource::group_resource).collect();
        assert!(
            ["pods", "secrets", "deployments.apps", "events"]
                .iter()
                .all(|name| names.iter().any(|n| n == name))
        );
        assert!(
            !names.iter().any(|name| name == "events.events.k8s.io" || name == "nodes" || name == "bindings")
        );
    }
}
