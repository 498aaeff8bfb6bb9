//! The one index of all pods: what controllers ask of them, a few hundred bytes each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use kube::core::DynamicObject;
use sampan_api::meta::{condition_is_true, items, list, str_at, str_of};
use tokio::sync::broadcast;

use crate::feed::{Change, Feeds, Key};

/// How many changes a listener may be behind before it has to look at everything.
const QUEUE: usize = 256;

/// What is kept of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PodSummary {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) created: Option<jiff::Timestamp>,
    pub(crate) labels: BTreeMap<String, String>,
    /// Empty while it is not scheduled.
    pub(crate) node: String,
    /// Whether all containers have ended for good.
    pub(crate) ended: bool,
    pub(crate) ready: bool,
    pub(crate) deleting: bool,
    pub(crate) ips: Vec<String>,
    pub(crate) hostname: String,
    pub(crate) subdomain: String,
    /// The named ports of its containers: name, protocol, number.
    pub(crate) ports: Vec<(String, String, i64)>,
}

impl PodSummary {
    fn read(object: &DynamicObject) -> Self {
        let data = &object.data;
        let metadata = &object.metadata;
        let text = |pointer| str_at(data, pointer).to_owned();
        let ports = list(data, "/spec/containers").iter().flat_map(|container| items(container, "ports"));
        let named = ports.filter(|port| !str_of(port, "name").is_empty()).map(|port| {
            let protocol =
                Some(str_of(port, "protocol")).filter(|protocol| !protocol.is_empty()).unwrap_or("TCP");
            let number = port["containerPort"].as_i64().unwrap_or_default();
            (str_of(port, "name").to_owned(), protocol.to_owned(), number)
        });
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            created: metadata.creation_timestamp.as_ref().map(|time| time.0),
            labels: metadata.labels.clone().unwrap_or_default(),
            node: text("/spec/nodeName"),
            ended: matches!(str_at(data, "/status/phase"), "Succeeded" | "Failed"),
            ready: condition_is_true(data, "Ready"),
            deleting: metadata.deletion_timestamp.is_some(),
            ips: list(data, "/status/podIPs").iter().map(|ip| str_of(ip, "ip").to_owned()).collect(),
            hostname: text("/spec/hostname"),
            subdomain: text("/spec/subdomain"),
            ports: named.collect(),
        }
    }
}

/// A pod that changed: as it was and as it is.
#[derive(Clone, Debug)]
pub(crate) struct PodChange {
    pub(crate) before: Option<Arc<PodSummary>>,
    pub(crate) now: Option<Arc<PodSummary>>,
}

/// All pods, shared by the controllers.
#[derive(Clone, Debug)]
pub(crate) struct PodIndex(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    changes: broadcast::Sender<PodChange>,
}

#[derive(Debug, Default)]
struct State {
    pods: BTreeMap<(String, String), Arc<PodSummary>>,
    listed: bool,
}

impl Default for PodIndex {
    fn default() -> Self {
        let (changes, _) = broadcast::channel(QUEUE);
        Self(Arc::new(Inner { state: Mutex::default(), changes }))
    }
}

impl PodIndex {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The changes from now on.
    pub(crate) fn changes(&self) -> broadcast::Receiver<PodChange> {
        self.0.changes.subscribe()
    }

    /// Whether the index is complete.
    pub(crate) fn listed(&self) -> bool {
        self.lock().listed
    }

    /// The pods that `wanted` wants.
    pub(crate) fn filter(&self, wanted: impl Fn(&PodSummary) -> bool) -> Vec<Arc<PodSummary>> {
        self.lock().pods.values().filter(|pod| wanted(pod)).cloned().collect()
    }

    /// The pods of a namespace.
    pub(crate) fn in_namespace(&self, namespace: &str) -> Vec<Arc<PodSummary>> {
        let from = (namespace.to_owned(), String::new());
        let state = self.lock();
        let pods = state.pods.range(from..).take_while(|((of, _), _)| of == namespace);
        pods.map(|(_, pod)| pod.clone()).collect()
    }

    pub(crate) fn set(&self, pod: PodSummary) {
        let key = (pod.namespace.clone(), pod.name.clone());
        let now = Arc::new(pod);
        let before = self.lock().pods.insert(key, now.clone());
        if before.as_ref() != Some(&now) {
            let _nobody_listens = self.0.changes.send(PodChange { before, now: Some(now) });
        }
    }

    fn remove(&self, key: Key) {
        let before = self.lock().pods.remove(&(key.namespace, key.name));
        if before.is_some() {
            let _nobody_listens = self.0.changes.send(PodChange { before, now: None });
        }
    }
}

/// Keeps the index.
pub(crate) fn run(index: PodIndex, feeds: &mut Feeds) -> impl Future<Output = ()> + use<> {
    let mut changes = feeds.subscribe("", "pods");
    async move {
        while let Some(change) = changes.next().await {
            match change {
                Change::Set(object) => index.set(PodSummary::read(&object)),
                Change::Gone(key, _) => index.remove(key),
                Change::Listed => {
                    index.lock().listed = true;
                    let _nobody_listens = index.0.changes.send(PodChange { before: None, now: None });
                }
            }
        }
    }
}
