//! The workers of the node's pods: who has one, what reaches it, and how all of them end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::worker::PodWorker;
use super::worker::inbox::{Inbox, NodeEnd, SHUTDOWN_REASON};
use crate::context::NodeContext;
use crate::pod_ref;
use crate::shutdown::ShutdownStep;

/// How long a stop waits for the first list of pods.
const LISTING: Duration = Duration::from_secs(5);

/// How long a stop waits for pods that had their time already: for a runtime that does not answer, for an API that has
/// gone before this node and never hears how they ended.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// What the status of a pod says that a graceful shutdown of the node ended (upstream's words).
const SHUTDOWN: &str = "Pod was terminated in response to imminent node shutdown.";

struct Entry {
    inbox: Arc<Inbox>,
    pod: Arc<Pod>,
}

/// The workers of a node's pods. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Workers {
    ctx: Arc<NodeContext>,
    entries: Arc<Mutex<HashMap<String, Entry>>>,
    /// Held while the burstable class is weighed, so that the weight written last is that of the newest pods.
    weighing: Arc<Mutex<()>>,
    tasks: TaskTracker,
    /// Ends all workers where they are; their pods keep running.
    halt: CancellationToken,
    /// Counts the workers that ended.
    ended: watch::Sender<u64>,
    /// Cancelled when the API has told all pods of the node for the first time.
    listed: CancellationToken,
    /// Cancelled when the node stops its pods: none is begun any more.
    stopping: CancellationToken,
}

impl Workers {
    pub(crate) fn new(ctx: Arc<NodeContext>) -> Self {
        let [halt, listed, stopping] = std::array::from_fn(|_| CancellationToken::new());
        Self {
            ctx,
            entries: Arc::default(),
            weighing: Arc::default(),
            tasks: TaskTracker::new(),
            halt,
            ended: watch::Sender::new(0),
            listed,
            stopping,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new pod, or a newer version of a known one.
    pub(crate) fn update(&self, pod: Pod) {
        self.update_all([pod]);
    }

    /// New pods, or newer versions of known ones.
    pub(crate) fn update_all(&self, pods: impl IntoIterator<Item = Pod>) {
        let mut other_weight = false;
        for pod in pods {
            other_weight |= self.take(Arc::new(pod));
        }
        if other_weight {
            self.weigh();
        }
    }

    /// Hands a pod to its worker; whether the pods may weigh something else now.
    fn take(&self, pod: Arc<Pod>) -> bool {
        self.ctx.status.observe(&pod);
        let mut entries = self.lock();
        match entries.get_mut(pod_ref::uid(&pod)) {
            Some(entry) => {
                // A status that only this kubelet wrote is no news for the worker.
                let (news, other) = (is_news(&entry.pod, &pod), entry.pod.spec != pod.spec);
                entry.pod = Arc::clone(&pod);
                if news {
                    entry.inbox.update(pod);
                }
                other
            }
            None if self.stopping.is_cancelled() => false,
            None => {
                self.spawn(&mut entries, pod, false);
                true
            }
        }
    }

    /// Gives the burstable class the weight of the pods that have a worker.
    fn weigh(&self) {
        let _turn = self.weighing.lock().unwrap_or_else(PoisonError::into_inner);
        self.ctx.cgroups.weigh_burstable(&self.pods());
    }

    /// The API no longer has the pod.
    pub(crate) fn removed(&self, uid: &str) {
        self.ctx.status.gone(uid);
        if let Some(entry) = self.lock().get(uid) {
            entry.inbox.gone();
        }
    }

    /// A pod of this node's manifests; one that has a worker already is left alone.
    pub(crate) fn start_static(&self, pod: Pod) {
        let mut entries = self.lock();
        if !entries.contains_key(pod_ref::uid(&pod)) {
            self.ctx.status.begin(&pod);
            self.spawn(&mut entries, Arc::new(pod), false);
            drop(entries);
            self.weigh();
        }
    }

    /// Ends a pod for good.
    pub(crate) fn end(&self, uid: &str, end: NodeEnd) {
        if let Some(entry) = self.lock().get(uid) {
            entry.inbox.end(end);
        }
    }

    /// What the pod leaves behind goes once it has ended: its room is needed.
    pub(crate) fn want_room(&self, uid: &str) {
        if let Some(entry) = self.lock().get(uid) {
            entry.inbox.want_room();
        }
    }

    /// Whether the pod is ending already.
    pub(crate) fn is_condemned(&self, uid: &str) -> bool {
        self.lock().get(uid).is_none_or(|entry| entry.inbox.is_gone() || entry.inbox.node_end().is_some())
    }

    /// Whether the pod has to end because nobody wants it any more.
    pub(crate) fn is_ending(&self, uid: &str) -> bool {
        self.lock().get(uid).is_none_or(|entry| entry.inbox.is_gone())
    }

    /// Changes whenever a worker ended.
    pub(crate) fn ended(&self) -> watch::Receiver<u64> {
        self.ended.subscribe()
    }

    /// The API has told all pods of the node.
    pub(crate) fn note_listed(&self) {
        self.listed.cancel();
    }

    /// Waits until the API has told all pods of the node for the first time.
    pub(crate) async fn listed(&self) {
        self.listed.cancelled().await;
    }

    /// Something happened to the pod in the runtime.
    pub(crate) fn wake(&self, uid: &str) {
        if let Some(entry) = self.lock().get(uid) {
            entry.inbox.wake();
        }
    }

    /// Terminates all pods and waits for it.
    pub(crate) async fn stop_all(&self) {
        // A node that is stopped in its first moments has pods that it has not heard of yet.
        let _ = tokio::time::timeout(LISTING, self.listed.cancelled()).await;
        self.stopping.cancel();
        self.end_by_priority().await;
        let mut grace = Duration::ZERO;
        for entry in self.lock().values() {
            entry.inbox.stop();
            if self.ctx.config.shutdown.is_empty() {
                let own = u64::try_from(entry.inbox.grace_seconds()).unwrap_or(0);
                grace = grace.max(Duration::from_secs(own));
            }
        }
        self.tasks.close();
        if tokio::time::timeout(grace.saturating_add(LAST_WORDS), self.tasks.wait()).await.is_err() {
            let left: Vec<String> = self.pods().iter().map(|pod| pod_ref::full_name(pod)).collect();
            tracing::warn!(pods = left.join(", "), "not finished; the next start goes on with them");
        }
    }

    /// Ends the pods for good in the order and time of the graceful shutdown that is configured, if one is.
    pub(crate) async fn end_by_priority(&self) {
        let steps = &self.ctx.config.shutdown;
        if !steps.is_empty() {
            self.ctx.metrics.node.shutdown_start.set(self.ctx.config.clock.now().as_second());
        }
        for (index, step) in steps.iter().enumerate() {
            let below = steps.get(index + 1).map(|next| next.priority);
            self.stop_group(index == 0, step, below).await;
        }
        if !steps.is_empty() {
            self.ctx.metrics.node.shutdown_end.set(self.ctx.config.clock.now().as_second());
        }
    }

    /// Stops the pods of one step of a graceful shutdown, and waits for them as long as the step may take.
    async fn stop_group(&self, first: bool, step: &ShutdownStep, below: Option<i32>) {
        let mut ended = self.ended();
        let mut group = Vec::new();
        for (uid, entry) in self.lock().iter() {
            let priority = pod_ref::spec(&entry.pod).priority.unwrap_or(0);
            if (first || priority >= step.priority) && below.is_none_or(|below| priority < below) {
                entry.inbox.end(NodeEnd {
                    reason: SHUTDOWN_REASON,
                    message: SHUTDOWN.to_owned(),
                    grace_seconds: i64::try_from(step.grace_period.as_secs()).unwrap_or(i64::MAX),
                });
                group.push(uid.clone());
            }
        }
        tracing::info!(pods = group.len(), priority = step.priority, "shutdown: pods of this priority end");
        // A second more than the pods have: SIGKILL and cleaning up take their time as well.
        let _ = tokio::time::timeout(step.grace_period + Duration::from_secs(1), async {
            while group.iter().any(|uid| self.knows(uid)) {
                let _ = ended.changed().await;
            }
        })
        .await;
    }

    /// Waits for the workers of pods that are already gone from the API: they are about to remove what is left.
    pub(crate) async fn finish_removals(&self, limit: Duration) {
        let removing = || self.lock().values().any(|entry| entry.inbox.is_gone());
        let _ = tokio::time::timeout(limit, async {
            while removing() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// Ends all workers without touching their pods.
    pub(crate) fn halt(&self) {
        self.halt.cancel();
    }

    /// The pods that have a worker.
    pub(crate) fn pods(&self) -> Vec<Arc<Pod>> {
        self.lock().values().map(|entry| Arc::clone(&entry.pod)).collect()
    }

    /// The pod of that name.
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.lock()
            .values()
            .find(|entry| pod_ref::namespace(&entry.pod) == namespace && pod_ref::name(&entry.pod) == name)
            .map(|entry| Arc::clone(&entry.pod))
    }

    /// Whether the pod has a worker.
    pub(crate) fn knows(&self, uid: &str) -> bool {
        self.lock().contains_key(uid)
    }

    /// Gives a pod a worker. The caller weighs the pods afresh, when it has let go of the entries.
    fn spawn(&self, entries: &mut HashMap<String, Entry>, pod: Arc<Pod>, gone: bool) {
        let uid = pod_ref::uid(&pod).to_owned();
        let inbox = Arc::new(Inbox::new(Arc::clone(&pod)));
        if gone {
            inbox.gone();
        }
        let worker = PodWorker::new(Arc::clone(&self.ctx), Arc::clone(&inbox), Arc::clone(&pod));
        entries.insert(uid.clone(), Entry { inbox, pod });
        let this = self.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = worker.run() => {}
                () = this.halt.cancelled() => {}
            }
            this.lock().remove(&uid);
            this.ended.send_modify(|count| *count += 1);
            this.weigh();
        });
    }

    /// A pod that only the runtime knows: it is terminated with the grace period that its containers remember.
    pub(crate) fn adopt_orphan(&self, pod: Pod) {
        let mut entries = self.lock();
        if !entries.contains_key(pod_ref::uid(&pod)) {
            tracing::info!(pod = %pod_ref::full_name(&pod), "nobody wants this pod any more: it is removed");
            self.ctx.metrics.pods.orphaned.inc();
            self.spawn(&mut entries, Arc::new(pod), true);
            drop(entries);
            self.weigh();
        }
    }
}

/// Whether anything changed that a worker has to react to.
fn is_news(old: &Pod, new: &Pod) -> bool {
    let foreign = |pod: &Pod| -> Vec<_> {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        conditions
            .into_iter()
            .filter(|condition| !crate::status::conditions::OWNED.contains(&condition.type_.as_str()))
            .map(|condition| (condition.type_, condition.status))
            .collect()
    };
    let strip = |metadata: &ObjectMeta| ObjectMeta {
        resource_version: None,
        managed_fields: None,
        ..metadata.clone()
    };
    old.spec != new.spec || strip(&old.metadata) != strip(&new.metadata) || foreign(old) != foreign(new)
}
