//! Static pods: manifests in a directory that this node runs, with or without an API server (POD-49 to POD-51).
//!
//! The directory is read when the kernel tells of a change, and every `fileCheckFrequency`. In the API each has a
//! mirror pod ([`mirror`]): a picture, which can be looked at and deleted without touching what runs.

mod manifest;
pub(crate) mod mirror;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::context::NodeContext;
use crate::pod_ref;
use crate::pods::runtime_pods::RuntimePods;
use crate::pods::workers::Workers;

/// The annotation that says where a pod came from: `api` or `file`.
pub(crate) const SOURCE: &str = "kubernetes.io/config.source";
/// The annotation with the hash of a static pod, which is its UID.
pub(crate) const HASH: &str = "kubernetes.io/config.hash";
/// The annotation with the time at which the manifest was read.
pub(crate) const SEEN: &str = "kubernetes.io/config.seen";
/// The annotation of a mirror pod: the hash of what it shows.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";

/// When a runtime that did not answer is asked again.
const RUNTIME_RETRY: std::time::Duration = std::time::Duration::from_secs(1);

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Whether this node runs the pod from a manifest.
pub(crate) fn is_static(pod: &Pod) -> bool {
    annotation(pod, SOURCE).is_some_and(|source| source != "api") && !is_mirror(pod)
}

/// Whether the pod is the picture of a static one.
pub(crate) fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, MIRROR).is_some()
}

/// Namespace and name, which a static pod shares with its mirror.
pub(crate) fn full_name(pod: &Pod) -> (String, String) {
    (pod_ref::namespace(pod).to_owned(), pod_ref::name(pod).to_owned())
}

/// Keeps the pods of the directory running until it is aborted. `ready` is told after the first reading.
pub(crate) async fn run(
    ctx: Arc<NodeContext>,
    workers: Workers,
    path: PathBuf,
    ready: tokio::sync::oneshot::Sender<()>,
) {
    let mut ready = Some(ready);
    let mut changes = watch::Changes::of(&path);
    let mut reported = BTreeMap::new();
    let mut ended = workers.ended();
    loop {
        let reading = manifest::read_all(&path, &ctx.config.node_name, ctx.config.clock.now());
        for (file, error) in &reading.errors {
            if reported.insert(file.clone(), error.clone()).as_ref() != Some(error) {
                tracing::error!(file = %file.display(), error, "static pod not read");
            }
        }
        reported.retain(|file, _| reading.errors.contains_key(file));
        let known = adopt_predecessors(&ctx, &workers, &reading).await;
        apply(&workers, reading, known);
        ctx.mirrors.wake();
        if let Some(ready) = ready.take() {
            let _ = ready.send(());
        }
        tokio::select! {
            () = changes.next() => {}
            _ = ended.changed() => {}
            () = tokio::time::sleep(if known { ctx.config.file_check_frequency } else { RUNTIME_RETRY }) => {}
        }
    }
}

/// Gives workers to what still runs of earlier versions of these pods: of manifests that were edited while no kubelet
/// ran. False when the runtime does not say.
async fn adopt_predecessors(ctx: &NodeContext, workers: &Workers, reading: &manifest::Reading) -> bool {
    let new: Vec<&Pod> = reading.pods.iter().filter(|pod| !workers.knows(pod_ref::uid(pod))).collect();
    if new.is_empty() {
        return true;
    }
    let running = match RuntimePods::read(ctx).await {
        Ok(pods) => pods.running_static(),
        Err(status) => {
            tracing::warn!(%status, "static pods wait until the runtime says what of them runs");
            return false;
        }
    };
    for old in running {
        if new.iter().any(|pod| full_name(pod) == full_name(&old) && pod.metadata.uid != old.metadata.uid) {
            workers.adopt_orphan(old);
        }
    }
    true
}

/// Starts what is new, if it `may_start`, and ends what is gone. A manifest that cannot be read now keeps its pod, and a
/// directory that cannot be read all of them.
fn apply(workers: &Workers, reading: manifest::Reading, may_start: bool) {
    let all = workers.pods();
    for pod in all.iter().filter(|pod| is_static(pod) && !reading.incomplete) {
        let wanted = reading.pods.iter().any(|wanted| wanted.metadata.uid == pod.metadata.uid);
        let unreadable = reading
            .errors
            .keys()
            .any(|file| annotation(pod, manifest::FILE).is_some_and(|of| std::path::Path::new(of) == file));
        if !wanted && !unreadable {
            workers.removed(pod_ref::uid(pod));
        }
    }
    for pod in reading.pods {
        // The earlier version of an edited manifest ends first; then we are called again.
        let predecessor = all.iter().any(|other| {
            full_name(other) == full_name(&pod)
                && other.metadata.uid != pod.metadata.uid
                && (is_static(other) || workers.is_ending(pod_ref::uid(other)))
        });
        if may_start && !predecessor {
            workers.start_static(pod);
        }
    }
}
