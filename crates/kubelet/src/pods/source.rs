//! Where pods come from and go to: the API's watch, the runtime's events, and what is left of pods that the
//! API no longer knows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use sampan_api::resources;
use sampan_cri::v1;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::runtime_pods::RuntimePods;
use super::worker::PodWorker;
use super::worker::inbox::{Inbox, NodeEnd, SHUTDOWN_REASON};
use crate::cgroups::as_value;
use crate::context::NodeContext;
use crate::labels;
use crate::pod_ref;
use crate::shutdown::ShutdownStep;
use crate::static_pods::{is_mirror, is_static};

/// How often the runtime is asked for everything when it has no events, or they broke off.
const RELIST: Duration = Duration::from_secs(1);
/// How often it is asked although it has events: a safety net.
const SAFETY_RELIST: Duration = Duration::from_secs(30);

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
        let pod = Arc::new(pod);
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
                if other {
                    drop(entries);
                    self.ctx.cgroups.weigh_burstable(&self.pods());
                }
            }
            None if self.stopping.is_cancelled() => {}
            None => self.spawn(&mut entries, pod, false),
        }
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
        }
    }

    /// Ends a pod for good.
    pub(crate) fn end(&self, uid: &str, end: NodeEnd) {
        if let Some(entry) = self.lock().get(uid) {
            entry.inbox.end(end);
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

    fn spawn(&self, entries: &mut HashMap<String, Entry>, pod: Arc<Pod>, gone: bool) {
        let uid = pod_ref::uid(&pod).to_owned();
        let inbox = Arc::new(Inbox::new(Arc::clone(&pod)));
        if gone {
            inbox.gone();
        }
        let worker = PodWorker::new(Arc::clone(&self.ctx), Arc::clone(&inbox), Arc::clone(&pod));
        entries.insert(uid.clone(), Entry { inbox, pod });
        let pods: Vec<Arc<Pod>> = entries.values().map(|entry| Arc::clone(&entry.pod)).collect();
        self.ctx.cgroups.weigh_burstable(&pods);
        let this = self.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = worker.run() => {}
                () = this.halt.cancelled() => {}
            }
            this.lock().remove(&uid);
            this.ended.send_modify(|count| *count += 1);
            this.ctx.cgroups.weigh_burstable(&this.pods());
        });
    }

    /// A pod that only the runtime knows: it is terminated with the grace period that its containers remember.
    pub(crate) fn adopt_orphan(&self, pod: Pod) {
        let mut entries = self.lock();
        if !entries.contains_key(pod_ref::uid(&pod)) {
            tracing::info!(pod = %pod_ref::full_name(&pod), "nobody wants this pod any more: it is removed");
            self.spawn(&mut entries, Arc::new(pod), true);
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
                    workers.listed.cancel();
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
    for pod in pods {
        workers.update(pod);
    }
}

/// Removes sandboxes, containers and directories of pods that the API does not know.
async fn remove_orphans(ctx: Arc<NodeContext>, workers: Workers) {
    let mut orphans = BTreeMap::new();
    for _ in 0..30 {
        match RuntimePods::read(&ctx).await {
            Ok(found) => {
                orphans = found.all();
                break;
            }
            Err(_) => tokio::time::sleep(RELIST).await,
        }
    }
    for (uid, pod) in orphans {
        if !workers.knows(&uid) {
            workers.adopt_orphan(pod);
        }
    }
    ctx.cgroups.remove_orphans(|uid| workers.knows(uid));
    let pods_dir = ctx.config.data_dir.join("pods");
    for entry in std::fs::read_dir(pods_dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(uid) = name.to_str().filter(|uid| !workers.knows(uid)) else { continue };
        remove_logs_of(&ctx, uid).await;
        if let Err(error) = ctx.removals.tear_down(entry.path()).await {
            tracing::warn!(error, "directory of a removed pod");
        }
    }
}

/// Removes `<ns>_<pod>_<uid>`; logs of pods that this kubelet has no directory of are somebody else's.
async fn remove_logs_of(ctx: &NodeContext, uid: &str) {
    for entry in std::fs::read_dir(&ctx.config.log_dir).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.ends_with(&format!("_{uid}")))
            && let Err(error) = ctx.removals.remove_logs(entry.path()).await
        {
            tracing::warn!(error, "logs of a removed pod");
        }
    }
}

/// Wakes workers when the runtime reports something about their pods.
pub(crate) async fn watch_runtime(ctx: Arc<NodeContext>, workers: Workers) {
    let mut known = HashMap::new();
    loop {
        match ctx.config.cri.container_events().await {
            Ok(mut events) => {
                // What happened before the stream began.
                relist(&ctx, &workers, &mut known).await;
                let mut safety = tokio::time::interval(SAFETY_RELIST);
                loop {
                    tokio::select! {
                        event = events.next() => match event {
                            Some(Ok(event)) => wake_for(&workers, &event),
                            Some(Err(status)) => {
                                tracing::debug!(%status, "the runtime's events broke off");
                                break;
                            }
                            None => break,
                        },
                        _ = safety.tick() => relist(&ctx, &workers, &mut known).await,
                    }
                }
            }
            Err(status) => tracing::debug!(%status, "the runtime has no events: it is asked every second"),
        }
        relist(&ctx, &workers, &mut known).await;
        tokio::time::sleep(RELIST).await;
    }
}

fn wake_for(workers: &Workers, event: &v1::ContainerEventResponse) {
    let from_sandbox = event
        .pod_sandbox_status
        .as_ref()
        .and_then(|status| status.metadata.as_ref())
        .map(|metadata| metadata.uid.as_str());
    let from_container = event
        .containers_statuses
        .iter()
        .find_map(|status| status.labels.get(labels::POD_UID).map(String::as_str));
    if let Some(uid) = from_sandbox.or(from_container) {
        workers.wake(uid);
    }
}

type Known = HashMap<String, (String, i32)>;

/// Compares everything with what was there the last time.
async fn relist(ctx: &NodeContext, workers: &Workers, known: &mut Known) {
    let cri = &ctx.config.cri;
    let (sandboxes, containers) =
        tokio::join!(cri.list_pod_sandboxes(Default::default()), cri.list_containers(Default::default()));
    let (Ok(sandboxes), Ok(containers)) = (sandboxes, containers) else { return };
    let uid = |labels: &HashMap<String, String>| labels.get(labels::POD_UID).cloned().unwrap_or_default();
    let mut now: Known =
        sandboxes.into_iter().map(|sandbox| (sandbox.id, (uid(&sandbox.labels), sandbox.state))).collect();
    now.extend(
        containers.into_iter().map(|container| (container.id, (uid(&container.labels), container.state))),
    );
    for (id, (uid, state)) in &now {
        if known.get(id).is_none_or(|(_, before)| before != state) {
            workers.wake(uid);
        }
    }
    for (id, (uid, _)) in known.iter() {
        if !now.contains_key(id) {
            workers.wake(uid);
        }
    }
    *known = now;
}
