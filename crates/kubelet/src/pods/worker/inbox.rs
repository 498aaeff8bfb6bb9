//! What the rest of the kubelet tells a worker: the newest pod object, that it has to end, that something
//! happened. Never blocks and never grows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::pod_ref;

#[derive(Debug)]
struct State {
    pod: Arc<Pod>,
    /// The API no longer has the pod.
    gone: bool,
    /// The node stops its pods.
    node_stops: bool,
    /// Containers that need not wait any longer.
    retries: Vec<String>,
    /// The pod was active for as long as it may be.
    expired: bool,
    /// The node ends this pod for good.
    node_end: Option<NodeEnd>,
    /// The room that the pod still takes when it has ended is needed.
    room_wanted: bool,
}

/// The reason in the status of a pod that the node ended because it is short of something.
pub(crate) const EVICTED: &str = "Evicted";

/// The reason in the status of a pod that a graceful shutdown of the node ended.
pub(crate) const SHUTDOWN_REASON: &str = "Terminated";

/// Why the node ends a pod for good: it is short of something, or shuts down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeEnd {
    /// The reason in the pod's status: [`EVICTED`] or [`SHUTDOWN_REASON`].
    pub(crate) reason: &'static str,
    /// For people.
    pub(crate) message: String,
    /// The most grace that the pod has, in seconds.
    pub(crate) grace_seconds: i64,
}

/// The mailbox of one worker.
#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    /// The newest pod for those who do not take part in the worker's rounds.
    pods: watch::Sender<Arc<Pod>>,
    wake: Notify,
    /// The same for whoever waits in the middle of a sync; the worker's own wait is not used up by it.
    happened: Notify,
    /// Set when the pod has to end: waits of a sync (pulls, hooks) are given up.
    ending: CancellationToken,
}

impl Inbox {
    pub(crate) fn new(pod: Arc<Pod>) -> Self {
        let ending = CancellationToken::new();
        if pod.metadata.deletion_timestamp.is_some() {
            ending.cancel();
        }
        let pods = watch::Sender::new(Arc::clone(&pod));
        let state = State {
            pod,
            gone: false,
            node_end: None,
            node_stops: false,
            expired: false,
            retries: Vec::new(),
            room_wanted: false,
        };
        Self { state: Mutex::new(state), pods, wake: Notify::new(), happened: Notify::new(), ending }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A newer version of the pod.
    pub(crate) fn update(&self, pod: Arc<Pod>) {
        if pod.metadata.deletion_timestamp.is_some() {
            self.ending.cancel();
        }
        self.lock().pod = Arc::clone(&pod);
        self.pods.send_replace(pod);
        self.wake.notify_one();
    }

    /// Follows the pod.
    pub(super) fn pods(&self) -> watch::Receiver<Arc<Pod>> {
        self.pods.subscribe()
    }

    /// The API no longer has the pod.
    pub(crate) fn gone(&self) {
        self.lock().gone = true;
        self.ending.cancel();
        self.wake.notify_one();
    }

    /// The node stops its pods; they run again when it does.
    pub(crate) fn stop(&self) {
        self.lock().node_stops = true;
        self.ending.cancel();
        self.wake.notify_one();
    }

    /// The node ends the pod for good.
    pub(crate) fn end(&self, end: NodeEnd) {
        self.lock().node_end.get_or_insert(end);
        self.ending.cancel();
        self.wake.notify_one();
    }

    /// Why the node ends the pod for good, if it does.
    pub(crate) fn node_end(&self) -> Option<NodeEnd> {
        self.lock().node_end.clone()
    }

    /// The room that the pod takes is needed: what it leaves behind goes once it has ended.
    pub(crate) fn want_room(&self) {
        self.lock().room_wanted = true;
        self.wake.notify_one();
    }

    pub(super) fn room_is_wanted(&self) -> bool {
        self.lock().room_wanted
    }

    /// Something happened in the runtime or to a probe.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
        self.happened.notify_waiters();
    }

    /// The pod was active for as long as it may be (POD-37).
    pub(super) fn expire(&self) {
        self.lock().expired = true;
        self.ending.cancel();
        self.wake.notify_one();
    }

    pub(super) fn is_expired(&self) -> bool {
        self.lock().expired
    }

    /// Resolves when [`Inbox::wake`] is called after this.
    pub(super) fn happened(&self) -> tokio::sync::futures::Notified<'_> {
        self.happened.notified()
    }

    /// What the container waited for happened.
    pub(crate) fn retry(&self, container: &str) {
        self.lock().retries.push(container.to_owned());
        self.wake.notify_one();
    }

    pub(super) fn take_retries(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().retries)
    }

    pub(super) fn take(&self) -> Arc<Pod> {
        Arc::clone(&self.lock().pod)
    }

    pub(super) fn must_end(&self) -> bool {
        self.ending.is_cancelled()
    }

    pub(super) fn ending(&self) -> CancellationToken {
        self.ending.clone()
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.lock().gone
    }

    pub(super) fn node_stops(&self) -> bool {
        self.lock().node_stops
    }

    /// Waits for the next thing to happen; something that happened since the last wait counts.
    pub(super) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// The grace period that a termination has, in seconds: what the deletion says, else the pod's own; one
    /// second at least (HOOK-30).
    pub(crate) fn grace_seconds(&self) -> i64 {
        let state = self.lock();
        let own = pod_ref::spec(&state.pod).termination_grace_period_seconds.unwrap_or(30);
        let grace = match state.pod.metadata.deletion_grace_period_seconds {
            // Removed at once: forced. A pod that only the runtime knew has no status, but its containers
            // remembered their grace period.
            _ if state.gone && state.pod.status.is_some() => 1,
            Some(grace) if state.pod.metadata.deletion_timestamp.is_some() => grace,
            _ => own,
        };
        let grace = state.node_end.as_ref().map_or(grace, |end| grace.min(end.grace_seconds));
        grace.max(1)
    }
}
