//! Follows the store: one watch over everything, from which the indexes of authorization and of token checks are kept.
//!
//! The watch covers the whole registry although few kinds matter, because then the mirror's revision moves with
//! the store's and "has it caught up" is one comparison.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use sampan_store::{KeyRange, KeyValue, RangeRequest, Revision, Store};
use serde_json::Value;
use tokio::task::AbortHandle;

use super::Indexes;
use crate::registry::key::ROOT;

/// How long a request waits for the mirror to catch up with the store before it is judged by what is known.
const CATCH_UP: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(200);

/// What tokens are bound to, as far as their checks need it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BoundObject {
    /// The object's uid.
    pub uid: String,
    /// A pod's node; empty when it is not bound.
    pub node: String,
    /// A pod's service account.
    pub service_account: String,
    /// `metadata.deletionTimestamp`; empty when it is not being deleted.
    pub deletion_timestamp: String,
}

/// Pods, Secrets, Nodes and ServiceAccounts by (plural, namespace, name).
#[derive(Debug, Default)]
pub(super) struct Objects(HashMap<&'static str, HashMap<String, BoundObject>>);

impl Objects {
    pub(super) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<&BoundObject> {
        let objects = self.0.get(resource)?;
        if namespace.is_empty() { objects.get(name) } else { objects.get(&format!("{namespace}/{name}")) }
    }
}

/// Which index a key belongs to, with namespace and name; `None` is of no interest.
fn subject(key: &[u8]) -> Option<(&'static str, &str, &str)> {
    const RBAC: &str = "rbac.authorization.k8s.io/";
    let key = std::str::from_utf8(key).ok()?.strip_prefix(ROOT)?;
    let key = key.strip_prefix(RBAC).unwrap_or(key);
    let (plural, rest) = key.split_once('/')?;
    let (plural, namespaced) = match plural {
        "pods" => ("pods", true),
        "secrets" => ("secrets", true),
        "serviceaccounts" => ("serviceaccounts", true),
        "roles" => ("roles", true),
        "rolebindings" => ("rolebindings", true),
        "nodes" => ("nodes", false),
        "persistentvolumes" => ("persistentvolumes", false),
        "clusterroles" => ("clusterroles", false),
        "clusterrolebindings" => ("clusterrolebindings", false),
        _ => return None,
    };
    let (namespace, name) = if namespaced { rest.split_once('/')? } else { ("", rest) };
    Some((plural, namespace, name))
}

/// The prefixes that a first read has to read.
const PREFIXES: [&str; 9] = [
    "rbac.authorization.k8s.io/clusterroles/",
    "rbac.authorization.k8s.io/clusterrolebindings/",
    "rbac.authorization.k8s.io/roles/",
    "rbac.authorization.k8s.io/rolebindings/",
    "nodes/",
    "persistentvolumes/",
    "pods/",
    "secrets/",
    "serviceaccounts/",
];

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

impl Indexes {
    /// Takes in a key's new value (or its deletion).
    fn apply(&self, key: &[u8], value: Option<&[u8]>) {
        let Some((plural, namespace, name)) = subject(key) else { return };
        let id = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
        if plural == "pods"
            && let Some(value) = value
            && !contains(value, b"\"deletionTimestamp\"")
            && !contains(value, b"\"ephemeralContainers\"")
            && self.objects.read().unwrap_or_else(PoisonError::into_inner).0.get("pods").is_some_and(|pods| {
                // Most changes of pods are of their status: nothing that is kept here.
                pods.get(&id).is_some_and(|pod| !pod.node.is_empty())
            })
        {
            return;
        }
        let object: Option<Value> = value.and_then(|value| {
            serde_json::from_slice(value)
                .inspect_err(|error| tracing::error!(key = id, %error, "a stored object cannot be read"))
                .ok()
        });
        match plural {
            "pods" | "persistentvolumes" => {
                let mut graph = self.graph.write().unwrap_or_else(PoisonError::into_inner);
                if plural == "pods" {
                    graph.apply_pod(namespace, name, object.as_ref());
                } else {
                    graph.apply_volume(name, object.as_ref());
                }
            }
            "roles" | "rolebindings" | "clusterroles" | "clusterrolebindings" => {
                let mut rbac = self.rbac.write().unwrap_or_else(PoisonError::into_inner);
                rbac.apply(plural, namespace, name, object.as_ref());
                drop(rbac);
                if plural == "clusterroles" {
                    self.cluster_roles_changed.notify_one();
                }
                return;
            }
            _ => {}
        }
        if plural == "persistentvolumes" {
            return;
        }
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        let objects = objects.0.entry(plural).or_default();
        match object {
            Some(object) => {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let pod = plural == "pods";
                let bound = BoundObject {
                    uid: text(&object["metadata"]["uid"]),
                    node: if pod { text(&object["spec"]["nodeName"]) } else { String::new() },
                    service_account: if pod {
                        text(&object["spec"]["serviceAccountName"])
                    } else {
                        String::new()
                    },
                    deletion_timestamp: text(&object["metadata"]["deletionTimestamp"]),
                };
                objects.insert(id, bound);
            }
            None => {
                objects.remove(&id);
            }
        }
    }

    fn clear(&self) {
        *self.rbac.write().unwrap_or_else(PoisonError::into_inner) = Default::default();
        *self.graph.write().unwrap_or_else(PoisonError::into_inner) = Default::default();
        *self.objects.write().unwrap_or_else(PoisonError::into_inner) = Default::default();
    }

    /// Reads everything anew; returns the revision that the indexes then stand at.
    async fn load(&self, store: &dyn Store) -> Result<Revision, sampan_store::Error> {
        let at = store.revision().await?;
        let mut all: Vec<KeyValue> = Vec::new();
        for prefix in PREFIXES {
            let range = KeyRange::prefix(format!("{ROOT}{prefix}"));
            let at = if at.0 == 0 { None } else { Some(at) };
            all.extend(store.range(RangeRequest { range, at, limit: 0, count_only: false }).await?.kvs);
        }
        self.clear();
        for kv in &all {
            self.apply(&kv.key, Some(&kv.value));
        }
        self.revision.send_replace(at.0);
        Ok(at)
    }

    /// Waits until the indexes know everything that the store acknowledged so far.
    pub(super) async fn catch_up(&self, store: &dyn Store) {
        let Ok(target) = store.revision().await else { return };
        let mut revision = self.revision.subscribe();
        let caught_up = revision.wait_for(|have| *have >= target.0);
        if tokio::time::timeout(CATCH_UP, caught_up).await.is_err() {
            tracing::warn!(target = target.0, "authorization judges by old data: its watch lags");
        }
    }
}

/// Fills the indexes and keeps them until the task is aborted.
///
/// # Errors
/// When the first read fails.
pub(super) async fn start(
    indexes: Arc<Indexes>,
    store: Arc<dyn Store>,
) -> Result<AbortHandle, sampan_store::Error> {
    let mut from = indexes.load(&*store).await?;
    let task = tokio::spawn(async move {
        loop {
            if let Err(error) = follow(&indexes, &*store, &mut from).await {
                tracing::warn!(%error, "authorization's watch of the store ended; reading everything anew");
            }
            tokio::time::sleep(RETRY).await;
            if let Ok(revision) = indexes.load(&*store).await {
                from = revision;
            }
        }
    });
    Ok(task.abort_handle())
}

async fn follow(
    indexes: &Indexes,
    store: &dyn Store,
    from: &mut Revision,
) -> Result<(), sampan_store::Error> {
    let mut watch = store.watch(KeyRange::prefix(ROOT), Some(Revision(from.0 + 1))).await?;
    while let Some(batch) = watch.next().await {
        let batch = batch?;
        for event in batch.events.iter() {
            indexes.apply(&event.kv.key, (!event.deleted).then_some(&*event.kv.value));
        }
        *from = batch.revision.max(*from);
        indexes.revision.send_replace(from.0);
    }
    Ok(())
}
