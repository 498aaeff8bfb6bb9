//! The loop: takes what the watches say, decides for every pod that is ready, and has the results written.

use std::collections::{HashMap, HashSet};
use std::pin::pin;

use futures::{Stream, StreamExt};
use kube::core::DynamicObject;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, Effect};
use crate::decide::decide;
use crate::node::Node;
use crate::pod::{self, Pod, PodKey};
use crate::queue::Queue;
use crate::report::{Reported, Reporter, resource};
use crate::{DEFAULT_SCHEDULER, Error, message};

pub(crate) struct Scheduler {
    client: Client,
    reporter: Reporter,
    cluster: Cluster,
    queue: Queue,
    /// What a listing has shown so far; only complete ones decide what is gone.
    listed_pods: HashSet<PodKey>,
    listed_nodes: HashSet<String>,
    pods_synced: bool,
    nodes_synced: bool,
    /// Reports of pods that fitted nowhere. The next write for the same pod waits for the one before: a late "does not
    /// fit" must not overwrite a binding.
    reports: HashMap<PodKey, JoinHandle<Option<Reported>>>,
    outcomes: mpsc::UnboundedSender<Outcome>,
}

/// How the binding of a pod ended.
struct Outcome {
    pod: PodKey,
    uid: String,
    result: Result<(), kube::Error>,
}

impl Scheduler {
    pub(crate) fn new(client: Client) -> Self {
        let (outcomes, _) = mpsc::unbounded_channel();
        Self {
            reporter: Reporter::new(client.clone()),
            client,
            cluster: Cluster::default(),
            queue: Queue::default(),
            listed_pods: HashSet::new(),
            listed_nodes: HashSet::new(),
            pods_synced: false,
            nodes_synced: false,
            reports: HashMap::new(),
            outcomes,
        }
    }

    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let (outcomes, mut results) = mpsc::unbounded_channel();
        self.outcomes = outcomes;
        let mut pods = pin!(self.watch("Pod", "pods", "status.phase!=Succeeded,status.phase!=Failed"));
        let mut nodes = pin!(self.watch("Node", "nodes", ""));
        loop {
            let due = self.queue.next_due();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                event = nodes.next() => self.on_node(event.ok_or(Error::WatchEnded("nodes"))?),
                Some(outcome) = results.recv() => self.on_outcome(outcome),
                event = pods.next() => self.on_pod(event.ok_or(Error::WatchEnded("pods"))?),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.queue.wake_due(),
            }
            if self.pods_synced && self.nodes_synced {
                while let Some(key) = self.queue.take() {
                    self.schedule(&key);
                }
            }
        }
    }

    fn watch(
        &self,
        kind: &str,
        plural: &str,
        fields: &str,
    ) -> impl Stream<Item = watcher::Result<Event<DynamicObject>>> + use<> {
        let resource = resource(kind, plural);
        let config =
            watcher::Config { field_selector: Some(fields.to_owned()), ..watcher::Config::default() };
        let config = if fields.is_empty() { watcher::Config::default() } else { config };
        watcher(Api::all_with(self.client.clone(), &resource), config).default_backoff()
    }

    fn on_node(&mut self, event: watcher::Result<Event<DynamicObject>>) {
        match event {
            Ok(Event::Init) => self.listed_nodes.clear(),
            Ok(Event::InitApply(object)) => {
                let node = Node::read(&object);
                self.listed_nodes.insert(node.name.clone());
                self.apply(|cluster| cluster.set_node(node));
            }
            Ok(Event::InitDone) => {
                self.cluster.keep_nodes(&std::mem::take(&mut self.listed_nodes));
                self.nodes_synced = true;
            }
            Ok(Event::Apply(object)) => self.apply(|cluster| cluster.set_node(Node::read(&object))),
            Ok(Event::Delete(object)) => self.cluster.remove_node(&object.metadata.name.unwrap_or_default()),
            Err(error) => tracing::warn!(%error, "nodes cannot be watched; trying again"),
        }
    }

    fn on_pod(&mut self, event: watcher::Result<Event<DynamicObject>>) {
        match event {
            Ok(Event::Init) => self.listed_pods.clear(),
            Ok(Event::InitApply(object)) => {
                self.listed_pods.insert(pod::key(&object));
                self.set_pod(&object);
            }
            Ok(Event::InitDone) => {
                let listed = std::mem::take(&mut self.listed_pods);
                self.cluster.pods_beyond(&listed).iter().for_each(|key| self.remove_pod(key));
                self.pods_synced = true;
            }
            Ok(Event::Apply(object)) => self.set_pod(&object),
            Ok(Event::Delete(object)) => self.remove_pod(&pod::key(&object)),
            Err(error) => tracing::warn!(%error, "pods cannot be watched; trying again"),
        }
    }

    fn set_pod(&mut self, object: &DynamicObject) {
        let Some(pod) = Pod::read(object) else { return self.remove_pod(&pod::key(object)) };
        let key = pod.key.clone();
        if self.cluster.pod(&key).is_some_and(|known| known.uid != pod.uid) {
            self.remove_pod(&key);
        }
        let known = self.cluster.pod(&key);
        let unchanged = known.is_some_and(|known| known.uid == pod.uid && known.wishes == pod.wishes);
        self.apply(|cluster| cluster.set_pod(pod));
        let Some(pod) = self.cluster.pod(&key) else { return };
        match &pod.wishes {
            Some(wishes) if pod.node.is_none() && wishes.scheduler == DEFAULT_SCHEDULER && !wishes.gated => {
                // Our own condition comes back as an event: nothing to decide anew.
                if !unchanged {
                    self.queue.offer(key, wishes.priority);
                }
            }
            _ => self.forget_waiting(&key),
        }
    }

    fn remove_pod(&mut self, key: &PodKey) {
        self.apply(|cluster| cluster.remove_pod(key));
        self.forget_waiting(key);
    }

    /// A pod that does not wait any more: gone, bound, assumed, or somebody else's.
    fn forget_waiting(&mut self, key: &PodKey) {
        if self.cluster.pod(key).is_none_or(|pod| pod.wishes.is_none()) {
            self.queue.remove(key);
            self.reports.remove(key);
        }
    }

    fn apply(&mut self, change: impl FnOnce(&mut Cluster) -> Effect) {
        if change(&mut self.cluster) == Effect::Freed {
            self.queue.wake();
        }
    }

    fn schedule(&mut self, key: &PodKey) {
        let Some(pod) = self.cluster.pod(key).cloned() else { return self.queue.remove(key) };
        let Some(wishes) = &pod.wishes else { return self.queue.remove(key) };
        let before = self.reports.remove(key);
        let reporter = self.reporter.clone();
        match decide(&self.cluster, &pod, wishes) {
            Ok(node) => {
                self.cluster.assume(key, &node);
                let outcomes = self.outcomes.clone();
                tokio::spawn(async move {
                    let reported = finished(before).await;
                    let result = reporter.bind(&pod, &node).await;
                    let failure = result.as_ref().err().map(ToString::to_string);
                    let _scheduler_ended =
                        outcomes.send(Outcome { pod: pod.key.clone(), uid: pod.uid.clone(), result });
                    match failure {
                        None => reporter.scheduled(&pod, &node).await,
                        Some(failure) => drop(reporter.failed(&pod, failure, reported).await),
                    }
                });
            }
            Err(rejections) => {
                self.queue.park(key);
                let text = message::unschedulable(&rejections);
                let report = tokio::spawn(async move {
                    let before = finished(before).await;
                    reporter.unschedulable(&pod, text, before).await
                });
                self.reports.insert(key.clone(), report);
            }
        }
    }

    fn on_outcome(&mut self, Outcome { pod: key, uid, result }: Outcome) {
        if self.cluster.pod(&key).is_none_or(|pod| pod.uid != uid) {
            // Deleted meanwhile; another pod of this name has nothing to do with it.
            return;
        }
        let Err(error) = result else { return self.queue.remove(&key) };
        tracing::warn!(pod = %key, %error, "the pod cannot be bound");
        if self.cluster.forget(&key, &uid) {
            self.queue.fail(&key);
            self.queue.wake();
        }
    }
}

/// What the report before wrote, once it has.
async fn finished(report: Option<JoinHandle<Option<Reported>>>) -> Option<Reported> {
    report?.await.ok().flatten()
}
