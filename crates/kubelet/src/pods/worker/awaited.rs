//! Waiting for what a container's environment refers to: a ConfigMap or Secret that does not exist yet, or lacks a
//! key. Each is watched by its name (more is not allowed to a node), and any news of one wakes the worker: the user who
//! creates the missing object need not wait for the next attempt.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use tokio_util::task::AbortOnDropHandle;

use super::inbox::Inbox;
use crate::generate::env::{References, Sources};

/// The watches of a pod's containers that could not be configured.
#[derive(Default)]
pub(super) struct Awaited(HashMap<String, Watching>);

struct Watching {
    arrived: Arc<AtomicBool>,
    /// Ends with the entry.
    _task: AbortOnDropHandle<()>,
}

impl Awaited {
    /// Watches the objects of a container; `seen` are those that were there.
    pub(super) fn watch(
        &mut self,
        client: &kube::Client,
        inbox: &Arc<Inbox>,
        (namespace, container): (&str, &str),
        wanted: References,
        seen: &Sources,
    ) {
        let config_maps = wanted.config_maps.into_iter().map(|name| {
            let version = seen.config_maps.get(&name).and_then(ResourceExt::resource_version);
            news::<ConfigMap>(client, namespace, &name, version)
        });
        let secrets = wanted.secrets.into_iter().map(|name| {
            let version = seen.secrets.get(&name).and_then(ResourceExt::resource_version);
            news::<Secret>(client, namespace, &name, version)
        });
        let mut all = stream::select_all(config_maps.chain(secrets));
        let arrived = Arc::new(AtomicBool::new(false));
        let (flag, inbox) = (Arc::clone(&arrived), Arc::clone(inbox));
        let task = tokio::spawn(async move {
            if all.next().await.is_some() {
                flag.store(true, Ordering::Release);
                inbox.wake();
            }
        });
        self.0.insert(container.to_owned(), Watching { arrived, _task: AbortOnDropHandle::new(task) });
    }

    /// Whether there are news for a container: then it need not wait any longer.
    pub(super) fn arrived(&self, container: &str) -> bool {
        self.0.get(container).is_some_and(|watching| watching.arrived.load(Ordering::Acquire))
    }

    /// A new attempt is made: it will look for itself.
    pub(super) fn forget(&mut self, container: &str) {
        self.0.remove(container);
    }
}

/// An item for each state of an object other than the one that was `seen`.
fn news<K>(client: &kube::Client, namespace: &str, name: &str, seen: Option<String>) -> BoxStream<'static, ()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
{
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    watcher(Api::<PartialObjectMeta<K>>::namespaced(client.clone(), namespace), only)
        .default_backoff()
        .filter_map(move |event| {
            let new = match event {
                Ok(Event::InitApply(object) | Event::Apply(object)) => object.resource_version() != seen,
                _ => false,
            };
            async move { new.then_some(()) }
        })
        .boxed()
}
