//! Where pods come from: the API's watch of this node's.

use std::collections::HashSet;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use sampan_api::resources;

use super::orphans::remove_orphans;
use super::workers::Workers;
use crate::cgroups::as_value;
use crate::context::NodeContext;
use crate::pod_ref;
use crate::static_pods::{is_mirror, is_static};

/// Watches this node's pods.
pub(crate) async fn watch_pods(ctx: Arc<NodeContext>, workers: Workers) {
    let config = watcher::Config::default().fields(&format!("spec.nodeName={}", ctx.config.node_name));
    let pods: Api<Pod> = Api::all(ctx.config.client.clone());
    let mut events = watcher(pods, config).default_backoff().boxed();
    let (mut listed, mut arrived) = (HashSet::new(), Vec::new());
    let mut first = true;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                arrived.clear();
            }
            // The picture of a static pod is nothing to run.
            Ok(watcher::Event::InitApply(pod)) if is_mirror(&pod) => {
                listed.insert(pod_ref::uid(&pod).to_owned());
                ctx.mirrors.observe(Arc::new(pod));
            }
            Ok(watcher::Event::Apply(pod)) if is_mirror(&pod) => ctx.mirrors.observe(Arc::new(pod)),
            Ok(watcher::Event::Delete(pod)) if is_mirror(&pod) => ctx.mirrors.removed(&pod),
            Ok(watcher::Event::InitApply(pod)) => {
                listed.insert(pod_ref::uid(&pod).to_owned());
                arrived.push(pod);
            }
            Ok(watcher::Event::InitDone) => {
                take_list(&ctx, &workers, std::mem::take(&mut arrived)).await;
                ctx.mirrors.retain(&listed);
                for pod in workers.pods().into_iter().filter(|pod| !is_static(pod)) {
                    if !listed.contains(pod_ref::uid(&pod)) {
                        workers.removed(pod_ref::uid(&pod));
                    }
                }
                if std::mem::take(&mut first) {
                    // Only now is it known which pods are nobody's.
                    tokio::spawn(remove_orphans(Arc::clone(&ctx), workers.clone()));
                    workers.note_listed();
                }
            }
            Ok(watcher::Event::Apply(pod)) => workers.update(pod),
            Ok(watcher::Event::Delete(pod)) => workers.removed(pod_ref::uid(&pod)),
            Err(error) => tracing::warn!(%error, "watch of pods"),
        }
    }
}

/// Takes a list, the oldest first. What has begun already counts before anybody new is judged (POD-55): a daemon that
/// comes back finds both.
async fn take_list(ctx: &NodeContext, workers: &Workers, mut pods: Vec<Pod>) {
    pods.sort_by(|one, other| one.metadata.creation_timestamp.cmp(&other.metadata.creation_timestamp));
    let begun = |pod: &&Pod| {
        pod.status.as_ref().is_some_and(|status| {
            status.start_time.is_some() && !pod_ref::is_terminal_phase(status.phase.as_deref())
        })
    };
    let mut counted = ctx.admitted.pods.lock().await;
    for pod in pods.iter().filter(begun).filter(|pod| !workers.knows(pod_ref::uid(pod))) {
        let requests = resources::pod_requests(&as_value(pod));
        counted.entry(pod_ref::uid(pod).to_owned()).or_insert(requests);
    }
    drop(counted);
    workers.update_all(pods);
}
