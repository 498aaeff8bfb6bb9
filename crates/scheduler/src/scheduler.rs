//! The loop: takes what the watches say, decides for every pod that is ready, and has the results written.

use std::collections::{HashMap, HashSet};
use std::pin::pin;

use futures::{Stream, StreamExt};
use kube::api::ApiResource;
use kube::core::DynamicObject;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::budget::Budget;
use crate::cluster::{Cluster, Effect};
use crate::decide::decide;
use crate::node::Node;
use crate::pod::{self, Pod, PodKey};
use crate::preempt::Sacrifice;
use crate::queue::Queue;
use crate::report::{Reported, Reporter, budgets, resource};
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
    namespaces_synced: bool,
    listed_namespaces: HashSet<String>,
    budgets_synced: bool,
    listed_budgets: HashSet<PodKey>,
    /// Reports of pods that fitted nowhere. The next write for the same pod waits for the one before: a late "does not
    /// fit" must not overwrite a binding.
    reports: HashMap<PodKey, JoinHandle<Option<Reported>>>,
    outcomes: mpsc::UnboundedSender<Outcome>,
}

/// What came of a write.
enum Outcome {
    /// How the binding of a pod ended.
    Bound { pod: PodKey, uid: String, result: Result<(), kube::Error> },
    /// A pod could not be evicted for another one.
    Stays { victim: PodKey, uid: String, preemptor: PodKey },
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
            namespaces_synced: false,
            listed_namespaces: HashSet::new(),
            budgets_synced: false,
            listed_budgets: HashSet::new(),
            reports: HashMap::new(),
            outcomes,
        }
    }

    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let (outcomes, mut results) = mpsc::unbounded_channel();
        self.outcomes = outcomes;
        let mut pods =
            pin!(self.watch(&resource("Pod", "pods"), "status.phase!=Succeeded,status.phase!=Failed"));
        let mut nodes = pin!(self.watch(&resource("Node", "nodes"), ""));
        let mut namespaces = pin!(self.watch(&resource("Namespace", "namespaces"), ""));
        let mut disruptions = pin!(self.watch(&budgets(), ""));
        loop {
            let due = self.queue.next_due();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                event = nodes.next() => self.on_node(event.ok_or(Error::WatchEnded("nodes"))?),
                event = namespaces.next() => self.on_namespace(event.ok_or(Error::WatchEnded("namespaces"))?),
                event = disruptions.next() => {
                    self.on_budget(event.ok_or(Error::WatchEnded("poddisruptionbudgets"))?);
                }
                Some(outcome) = results.recv() => self.on_outcome(outcome),
                event = pods.next() => self.on_pod(event.ok_or(Error::WatchEnded("pods"))?),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.queue.wake_due(),
            }
            if self.pods_synced && self.nodes_synced && self.namespaces_synced && self.budgets_synced {
                while let Some(key) = self.queue.take() {
                    self.schedule(&key);
                }
            }
        }
    }

    fn watch(
        &self,
        resource: &ApiResource,
        fields: &str,
    ) -> impl Stream<Item = watcher::Result<Event<DynamicObject>>> + use<> {
        let config =
            watcher::Config { field_selector: Some(fields.to_owned()), ..watcher::Config::default() };
        let config = if fields.is_empty() { watcher::Config::default() } else { config };
        watcher(Api::all_with(self.client.clone(), resource), config).default_backoff()
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
                let listed = std::mem::take(&mut self.listed_nodes);
                self.apply(|cluster| cluster.keep_nodes(&listed));
                self.nodes_synced = true;
            }
            Ok(Event::Apply(object)) => self.apply(|cluster| cluster.set_node(Node::read(&object))),
            Ok(Event::Delete(object)) => {
                self.apply(|cluster| cluster.remove_node(&object.metadata.name.unwrap_or_default()));
            }
            Err(error) => tracing::warn!(%error, "nodes cannot be watched; trying again"),
        }
    }

    fn on_namespace(&mut self, event: watcher::Result<Event<DynamicObject>>) {
        let read = |object: &DynamicObject| {
            let labels = object.metadata.labels.iter().flatten();
            let labels = labels.map(|(name, value)| (name.clone(), value.as_str().into())).collect();
            (object.metadata.name.clone().unwrap_or_default(), Some(labels))
        };
        match event {
            Ok(Event::Init) => self.listed_namespaces.clear(),
            Ok(Event::InitApply(object)) => {
                let (name, labels) = read(&object);
                self.listed_namespaces.insert(name.clone());
                self.apply(|cluster| cluster.set_namespace(name, labels));
            }
            Ok(Event::InitDone) => {
                let listed = std::mem::take(&mut self.listed_namespaces);
                let gone = self.cluster.namespaces().keys().filter(|name| !listed.contains(*name));
                for name in gone.cloned().collect::<Vec<_>>() {
                    self.apply(|cluster| cluster.set_namespace(name, None));
                }
                self.namespaces_synced = true;
            }
            Ok(Event::Apply(object)) => {
                let (name, labels) = read(&object);
                self.apply(|cluster| cluster.set_namespace(name, labels));
            }
            Ok(Event::Delete(object)) => {
                self.apply(|cluster| cluster.set_namespace(object.metadata.name.unwrap_or_default(), None));
            }
            Err(error) => tracing::warn!(%error, "namespaces cannot be watched; trying again"),
        }
    }

    fn on_budget(&mut self, event: watcher::Result<Event<DynamicObject>>) {
        match event {
            Ok(Event::Init) => self.listed_budgets.clear(),
            Ok(Event::InitApply(object)) => {
                self.listed_budgets.insert(pod::key(&object));
                self.cluster.set_budget(pod::key(&object), Some(Budget::read(&object)));
            }
            Ok(Event::InitDone) => {
                let listed = std::mem::take(&mut self.listed_budgets);
                let gone = self.cluster.budgets().keys().filter(|key| !listed.contains(*key)).cloned();
                for key in gone.collect::<Vec<_>>() {
                    self.cluster.set_budget(key, None);
                }
                self.budgets_synced = true;
            }
            Ok(Event::Apply(object)) => {
                self.cluster.set_budget(pod::key(&object), Some(Budget::read(&object)));
            }
            Ok(Event::Delete(object)) => self.cluster.set_budget(pod::key(&object), None),
            Err(error) => tracing::warn!(%error, "PodDisruptionBudgets cannot be watched; trying again"),
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
        // What we ourselves write, the nominated node too, comes back as an event: nothing to decide anew.
        let wishes = |pod: &Pod| {
            let mut wishes = pod.wishes.clone();
            wishes.iter_mut().for_each(|wishes| wishes.nominated = None);
            wishes
        };
        let unchanged = known.is_some_and(|known| known.uid == pod.uid && wishes(known) == wishes(&pod));
        self.apply(|cluster| cluster.set_pod(pod));
        let Some(pod) = self.cluster.pod(&key) else { return };
        match &pod.wishes {
            Some(wishes) if pod.node.is_none() && wishes.scheduler == DEFAULT_SCHEDULER && !wishes.gated => {
                if !unchanged {
                    self.queue.offer(key, pod.priority);
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
                        outcomes.send(Outcome::Bound { pod: pod.key.clone(), uid: pod.uid.clone(), result });
                    match failure {
                        None => reporter.scheduled(&pod, &node).await,
                        Some(failure) => drop(reporter.failed(&pod, failure, reported).await),
                    }
                });
            }
            Err(refusal) => {
                self.queue.park(key);
                let text = message::unschedulable(&refusal);
                let sacrifice = refusal.sacrifice.map(|Sacrifice { node, victims }| {
                    let lesser = self.cluster.nominate(key, &node);
                    let lesser: Vec<_> =
                        lesser.iter().filter_map(|key| self.cluster.pod(key).cloned()).collect();
                    let found = victims.iter().filter_map(|victim| self.cluster.pod(victim).cloned());
                    let found: Vec<_> = found.collect();
                    victims.iter().for_each(|victim| self.cluster.expect_end(victim));
                    (node, found, lesser)
                });
                let outcomes = self.outcomes.clone();
                let report = tokio::spawn(async move {
                    let before = finished(before).await;
                    if let Some((node, victims, lesser)) = sacrifice {
                        reporter.nominate(&pod, Some(&node)).await;
                        for other in &lesser {
                            reporter.nominate(other, None).await;
                        }
                        for victim in victims.iter().filter(|victim| !victim.ending) {
                            if !reporter.evict(victim, &pod, &node).await {
                                let (victim, uid) = (victim.key.clone(), victim.uid.clone());
                                let preemptor = pod.key.clone();
                                let _scheduler_ended =
                                    outcomes.send(Outcome::Stays { victim, uid, preemptor });
                            }
                        }
                    }
                    reporter.unschedulable(&pod, text, before).await
                });
                self.reports.insert(key.clone(), report);
            }
        }
    }

    fn on_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Bound { pod, uid, result } => self.on_binding(pod, &uid, result),
            Outcome::Stays { victim, uid, preemptor } => {
                self.cluster.expect_no_end(&victim, &uid);
                if self.cluster.pod(&preemptor).is_some_and(|pod| pod.wishes.is_some()) {
                    self.queue.fail(&preemptor);
                }
            }
        }
    }

    fn on_binding(&mut self, key: PodKey, uid: &str, result: Result<(), kube::Error>) {
        if self.cluster.pod(&key).is_none_or(|pod| pod.uid != uid) {
            // Deleted meanwhile; another pod of this name has nothing to do with it.
            return;
        }
        let Err(error) = result else {
            self.queue.remove(&key);
            // It is the company that another pod waits for, perhaps.
            if self.cluster.somebody_wants_company() {
                self.queue.wake();
            }
            return;
        };
        tracing::warn!(pod = %key, %error, "the pod cannot be bound");
        if self.cluster.forget(&key, uid) {
            self.queue.fail(&key);
            self.queue.wake();
        }
    }
}

/// What the report before wrote, once it has.
async fn finished(report: Option<JoinHandle<Option<Reported>>>) -> Option<Reported> {
    report?.await.ok().flatten()
}
