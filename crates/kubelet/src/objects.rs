//! Objects that pods refer to: ConfigMaps and Secrets by name, once or followed as they change, ClusterTrustBundles and
//! Services by watch.

mod followed;
mod trust_bundles;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use tokio::sync::watch;

pub(crate) use followed::{Followed, Following};
pub(crate) use trust_bundles::{Bundles, FollowedBundles, TrustBundles};

/// Services by namespace and name.
type Services = BTreeMap<(String, String), Arc<Service>>;

/// Reads what pods refer to. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Objects {
    client: kube::Client,
    /// ConfigMaps in volumes.
    pub(crate) config_maps: Following<ConfigMap>,
    /// Secrets in volumes.
    pub(crate) secrets: Following<Secret>,
    /// ClusterTrustBundles in volumes.
    pub(crate) trust_bundles: TrustBundles,
    services: Arc<Mutex<Services>>,
    services_read: watch::Receiver<bool>,
}

impl Objects {
    /// Starts the watch of Services; the task is returned so that it can be stopped.
    pub(crate) fn start(client: kube::Client) -> (Self, tokio::task::JoinHandle<()>) {
        let (read, services_read) = watch::channel(false);
        let services: Arc<Mutex<Services>> = Arc::default();
        let task = tokio::spawn(watch_services(client.clone(), Arc::clone(&services), read));
        let (config_maps, secrets) = (Following::new(client.clone()), Following::new(client.clone()));
        let trust_bundles = TrustBundles::new(client.clone());
        (Self { client, config_maps, secrets, trust_bundles, services, services_read }, task)
    }

    /// A ConfigMap, or `None` when there is none of that name.
    pub(crate) async fn config_map(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<ConfigMap>, kube::Error> {
        Api::<ConfigMap>::namespaced(self.client.clone(), namespace).get_opt(name).await
    }

    /// A Secret, or `None` when there is none of that name.
    pub(crate) async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, kube::Error> {
        Api::<Secret>::namespaced(self.client.clone(), namespace).get_opt(name).await
    }

    /// All Services, once they were listed; `None` when that does not happen in time (ENV-35).
    pub(crate) async fn services(&self) -> Option<Vec<Arc<Service>>> {
        let mut read = self.services_read.clone();
        let ready =
            tokio::time::timeout(std::time::Duration::from_secs(5), read.wait_for(|read| *read)).await;
        if !matches!(ready, Ok(Ok(_))) {
            return None;
        }
        Some(self.services_so_far())
    }

    /// The Services that are known now.
    pub(crate) fn services_so_far(&self) -> Vec<Arc<Service>> {
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.values().cloned().collect()
    }
}

async fn watch_services(client: kube::Client, services: Arc<Mutex<Services>>, read: watch::Sender<bool>) {
    let key = |service: &Service| {
        (
            service.metadata.namespace.clone().unwrap_or_default(),
            service.metadata.name.clone().unwrap_or_default(),
        )
    };
    let mut fresh = BTreeMap::new();
    let mut events =
        watcher(Api::<Service>::all(client), watcher::Config::default()).default_backoff().boxed();
    while let Some(event) = events.next().await {
        let lock = || services.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Ok(watcher::Event::Init) => fresh.clear(),
            Ok(watcher::Event::InitApply(service)) => {
                fresh.insert(key(&service), Arc::new(service));
            }
            Ok(watcher::Event::InitDone) => {
                *lock() = std::mem::take(&mut fresh);
                read.send_replace(true);
            }
            Ok(watcher::Event::Apply(service)) => {
                lock().insert(key(&service), Arc::new(service));
            }
            Ok(watcher::Event::Delete(service)) => {
                lock().remove(&key(&service));
            }
            Err(error) => tracing::debug!(%error, "watch of services"),
        }
    }
}
