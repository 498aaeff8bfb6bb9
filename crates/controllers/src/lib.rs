//! Reconcilers over the API: namespaces, service accounts, the root CA's ConfigMap, garbage collection, nodes and
//! their taints, disruption budgets, endpoints, runtime classes,
//! quotas.
//!
//! One file per controller. They share one watch per resource ([`feed`]), one index of the pods ([`pods`]) and one
//! loop ([`reconcile`]) that calls a function per key, never twice at once for the same one, with back-off. What each
//! remembers of the cluster is what it decides on, not the objects.

mod disruption;
mod endpoints;
mod error;
mod feed;
mod garbage;
mod kinds;
mod namespace;
mod node_lifecycle;
mod pod_collection;
mod pods;
mod reconcile;
mod resource_quota;
mod root_ca;
mod runtime_classes;
mod service_account;
mod taint_eviction;

use std::time::Duration;

use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use error::Error;

use crate::feed::Feeds;
use crate::pods::PodIndex;

/// What the controllers need to know beyond what the API tells them.
#[derive(Clone, Debug)]
pub struct ControllersConfig {
    /// The cluster's CA certificate, PEM: the content of every namespace's `kube-root-ca.crt`.
    pub ca_pem: String,
    /// How many ended pods are kept (upstream's `--terminated-pod-gc-threshold`).
    pub ended_pods: usize,
    /// How long the RuntimeClass of a handler stays when no node offers the handler any more.
    pub idle_runtime_classes: Duration,
}

impl Default for ControllersConfig {
    fn default() -> Self {
        Self { ca_pem: String::new(), ended_pods: 12_500, idle_runtime_classes: Duration::from_secs(300) }
    }
}

/// Runs all controllers until `shutdown` is cancelled.
///
/// # Errors
/// When a controller ends by itself, which only a bug makes it do.
pub async fn run(
    client: Client,
    config: ControllersConfig,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let mut tasks = JoinSet::new();
    let mut feeds = Feeds::new(client.clone());
    let pods = PodIndex::default();
    let named = |name, task: futures::future::BoxFuture<'static, ()>| async move {
        task.await;
        name
    };
    let mut start = |name: &'static str, task| tasks.spawn(named(name, task));

    let accounts = service_account::run(client.clone(), &mut feeds);
    start("service account", Box::pin(accounts));
    start("root CA", Box::pin(root_ca::run(client.clone(), config.ca_pem, &mut feeds)));
    start("namespace", Box::pin(namespace::run(client.clone(), &mut feeds)));
    start("endpoints", Box::pin(endpoints::run(client.clone(), pods.clone(), &mut feeds)));
    start("node lifecycle", Box::pin(node_lifecycle::run(client.clone(), pods.clone(), &mut feeds)));
    let collection = pod_collection::run(client.clone(), pods.clone(), config.ended_pods, &mut feeds);
    start("pod collection", Box::pin(collection));
    start("resource quota", Box::pin(resource_quota::run(client.clone(), &mut feeds)));
    let classes = runtime_classes::run(client.clone(), config.idle_runtime_classes, &mut feeds);
    start("runtime classes", Box::pin(classes));
    start("disruption", Box::pin(disruption::run(client.clone(), pods.clone(), &mut feeds)));
    start("taint eviction", Box::pin(taint_eviction::run(client.clone(), &mut feeds)));
    start("pods", Box::pin(pods::run(pods, &mut feeds)));
    start("garbage", Box::pin(garbage::run(client)));
    start("feeds", Box::pin(feeds.run()));

    tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        ended = tasks.join_next() => Err(Error::Stopped(match ended {
            Some(Ok(name)) => name,
            _ => "unknown",
        })),
    }
}
