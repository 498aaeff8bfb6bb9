//! Mirror pods: what the API shows of static pods (POD-50). One that is deleted or shows an old manifest is made
//! anew; one whose pod is no more is removed. What runs does not depend on them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use tokio::sync::Notify;

use super::{HASH, MIRROR, annotation, full_name, is_static};
use crate::context::NodeContext;
use crate::pod_ref;
use crate::pods::workers::Workers;

/// An API that does not answer is asked again after this long.
const RETRY: Duration = Duration::from_secs(2);

/// Pods by namespace and name.
type ByName = HashMap<(String, String), Arc<Pod>>;

/// The mirror pods that the API has.
#[derive(Clone, Default)]
pub(crate) struct Mirrors {
    known: Arc<Mutex<ByName>>,
    changed: Arc<Notify>,
}

impl Mirrors {
    fn lock(&self) -> MutexGuard<'_, ByName> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The API has this mirror pod.
    pub(crate) fn observe(&self, pod: Arc<Pod>) {
        self.lock().insert(full_name(&pod), pod);
        self.changed.notify_one();
    }

    /// The API no longer has it.
    pub(crate) fn removed(&self, pod: &Pod) {
        let mut known = self.lock();
        if known.get(&full_name(pod)).is_some_and(|have| have.metadata.uid == pod.metadata.uid) {
            known.remove(&full_name(pod));
        }
        drop(known);
        self.changed.notify_one();
    }

    /// The API has listed all pods: what is not among these UIDs is gone.
    pub(crate) fn retain(&self, listed: &HashSet<String>) {
        self.lock().retain(|_, pod| listed.contains(pod_ref::uid(pod)));
        self.changed.notify_one();
    }

    /// Something about the static pods changed.
    pub(crate) fn wake(&self) {
        self.changed.notify_one();
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    fn all(&self) -> Vec<Arc<Pod>> {
        self.lock().values().cloned().collect()
    }

    fn get(&self, pod: &Pod) -> Option<Arc<Pod>> {
        self.lock().get(&full_name(pod)).cloned()
    }
}

/// Keeps the mirrors true until it is aborted.
pub(crate) async fn run(ctx: Arc<NodeContext>, workers: Workers) {
    let mirrors = ctx.mirrors.clone();
    workers.listed().await;
    let mut ended = workers.ended();
    loop {
        let done = reconcile(&ctx, &workers, &mirrors).await;
        tokio::select! {
            () = mirrors.changed.notified() => {}
            _ = ended.changed() => {}
            () = tokio::time::sleep(RETRY), if !done => {}
        }
    }
}

/// True when nothing is left to be done.
async fn reconcile(ctx: &Arc<NodeContext>, workers: &Workers, mirrors: &Mirrors) -> bool {
    let pods: Vec<Arc<Pod>> = workers.pods().into_iter().filter(|pod| is_static(pod)).collect();
    let mut done = true;
    for mirror in mirrors.all() {
        // A pod that is still ending keeps its mirror.
        if !pods.iter().any(|pod| full_name(pod) == full_name(&mirror)) {
            done &= delete(ctx, &mirror).await;
        }
    }
    for pod in pods.iter().filter(|pod| !workers.is_ending(pod_ref::uid(pod))) {
        match mirrors.get(pod) {
            Some(mirror)
                if mirror.metadata.deletion_timestamp.is_none()
                    && annotation(&mirror, MIRROR) == annotation(pod, HASH) =>
            {
                ctx.status.observe_mirror(pod_ref::uid(pod), &mirror);
            }
            Some(outdated) => done &= delete(ctx, &outdated).await,
            None => done &= create(ctx, pod, mirrors).await,
        }
    }
    done
}

async fn create(ctx: &NodeContext, pod: &Pod, mirrors: &Mirrors) -> bool {
    let nodes: Api<Node> = Api::all(ctx.config.client.clone());
    let uid = match nodes.get_opt(&ctx.config.node_name).await {
        Ok(Some(node)) => node.metadata.uid.unwrap_or_default(),
        // Registered any moment.
        Ok(None) | Err(_) => return false,
    };
    let mut annotations = pod.metadata.annotations.clone().unwrap_or_default();
    annotations.insert(MIRROR.to_owned(), annotations.get(HASH).cloned().unwrap_or_default());
    let mirror = Pod {
        metadata: ObjectMeta {
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            labels: pod.metadata.labels.clone(),
            annotations: Some(annotations),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: ctx.config.node_name.clone(),
                uid,
                controller: Some(true),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: pod.spec.clone(),
        status: None,
    };
    let pods: Api<Pod> = Api::namespaced(ctx.config.client.clone(), pod_ref::namespace(pod));
    match pods.create(&PostParams::default(), &mirror).await {
        Ok(created) => {
            ctx.status.observe_mirror(pod_ref::uid(pod), &created);
            mirrors.lock().insert(full_name(&created), Arc::new(created));
            true
        }
        // The watch is about to tell of it, or somebody's pod has the name.
        Err(kube::Error::Api(status)) if status.code == 409 => true,
        Err(error) => {
            tracing::warn!(pod = %pod_ref::full_name(pod), %error, "mirror pod not made yet");
            false
        }
    }
}

/// Removes the picture at once: nothing has to end for it.
async fn delete(ctx: &NodeContext, mirror: &Pod) -> bool {
    let pods: Api<Pod> = Api::namespaced(ctx.config.client.clone(), pod_ref::namespace(mirror));
    let parameters = DeleteParams::default()
        .grace_period(0)
        .preconditions(Preconditions { uid: mirror.metadata.uid.clone(), resource_version: None });
    match pods.delete(pod_ref::name(mirror), &parameters).await {
        Ok(_) => true,
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => true,
        Err(error) => {
            tracing::warn!(pod = %pod_ref::full_name(mirror), %error, "mirror pod not removed yet");
            false
        }
    }
}
