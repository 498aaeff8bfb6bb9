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
use crate::pods::source::Workers;

/// The annotation that says where a pod came from: `api` or `file`.
pub(crate) const SOURCE: &str = "kubernetes.io/config.source";
/// The annotation with the hash of a static pod, which is its UID.
pub(crate) const HASH: &str = "kubernetes.io/config.hash";
/// The annotation with the time at which the manifest was read.
pub(crate) const SEEN: &str = "kubernetes.io/config.seen";
/// The annotation of a mirror pod: the hash of what it shows.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";

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
        apply(&workers, reading);
        ctx.mirrors.wake();
        if let Some(ready) = ready.take() {
            let _ = ready.send(());
        }
        tokio::select! {
            () = changes.next() => {}
            _ = ended.changed() => {}
            () = tokio::time::sleep(ctx.config.file_check_frequency) => {}
        }
    }
}

/// Starts what is new and ends what is gone. A manifest that cannot be read now keeps its pod.
fn apply(workers: &Workers, reading: manifest::Reading) {
    let running: Vec<Arc<Pod>> = workers.pods().into_iter().filter(|pod| is_static(pod)).collect();
    for pod in &running {
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
        let predecessor = running
            .iter()
            .any(|other| full_name(other) == full_name(&pod) && other.metadata.uid != pod.metadata.uid);
        if !predecessor {
            workers.start_static(pod);
        }
    }
}
