//! Whether the node can give a running pod what a resize asks for (KEP-1287), and who gets what becomes free when
//! several wait for it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sampan_api::resources::{self, ResourceList};
use tokio::time::Instant;

use super::capacity::Resources;
use crate::pods::worker::inbox::Inbox;
use crate::quantities;

/// Why a resize is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Others have it now: it is tried again when something becomes free.
    Deferred(String),
    /// The node never has as much.
    Infeasible(String),
}

impl Refusal {
    /// The reason of the condition `PodResizePending`.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Deferred(_) => "Deferred",
            Self::Infeasible(_) => "Infeasible",
        }
    }

    /// Its message.
    pub(crate) fn message(&self) -> &str {
        match self {
            Self::Deferred(message) | Self::Infeasible(message) => message,
        }
    }
}

/// Whether the pod `uid` may have `requests`, beside what the others have.
pub(crate) fn judge(
    uid: &str,
    requests: &ResourceList,
    pods: &HashMap<String, ResourceList>,
    allocatable: &Resources,
) -> Result<(), Refusal> {
    let amount = |list: &ResourceList, name: &str| match list.get(name) {
        Some(quantity) if name == "cpu" => quantity.milli_value(),
        Some(quantity) => quantity.value(),
        None => 0,
    };
    let capacity = |name: &str| match name {
        "cpu" => quantities::listed_milli(Some(allocatable), name),
        _ => quantities::listed(Some(allocatable), name),
    };
    // Memory first, as upstream names it first.
    for name in ["memory", "cpu"] {
        let (requested, capacity) = (amount(requests, name), capacity(name).unwrap_or(0));
        if requested > capacity {
            let what = format!("{name}, requested: {requested}, capacity: {capacity}");
            return Err(Refusal::Infeasible(format!("Node didn't have enough capacity: {what}")));
        }
    }
    let mut used = ResourceList::new();
    for (_, other) in pods.iter().filter(|(other, _)| *other != uid) {
        resources::add(&mut used, other);
    }
    let own = pods.get(uid).cloned().unwrap_or_default();
    for name in ["cpu", "memory"] {
        let (requested, used) = (amount(requests, name), amount(&used, name));
        let capacity = capacity(name).unwrap_or(0);
        // Who gives something back is never refused, on however full a node.
        if requested > amount(&own, name) && requested + used > capacity {
            let what = format!("{name}, requested: {requested}, used: {used}, capacity: {capacity}");
            return Err(Refusal::Deferred(format!("Node didn't have enough resource: {what}")));
        }
    }
    Ok(())
}

/// A resize that waits.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    /// What the pod would have.
    pub(crate) requests: ResourceList,
    /// The pod's priority: the higher one is served first.
    pub(crate) priority: i32,
    /// Whether the pod is of the class that is served first among equals.
    pub(crate) guaranteed: bool,
    /// Since when it waits: the longer one is served first among equals.
    pub(crate) since: Instant,
    /// Whom to wake.
    pub(crate) inbox: Arc<Inbox>,
}

/// The resizes that wait for something to become free, by the pod's UID.
#[derive(Default)]
pub(crate) struct WaitingResizes(Mutex<HashMap<String, Waiting>>);

impl WaitingResizes {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a resize into the queue; one that is there keeps its place.
    pub(crate) fn wait(&self, uid: &str, mut waiting: Waiting) {
        let mut all = self.lock();
        if let Some(before) = all.get(uid) {
            waiting.since = before.since;
        }
        all.insert(uid.to_owned(), waiting);
    }

    /// The resize does not wait any more.
    pub(crate) fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Something became free: those whose turn it is get it in `pods`, and are woken to take it.
    pub(crate) fn serve(&self, pods: &mut HashMap<String, ResourceList>, allocatable: &Resources) {
        let mut all = self.lock();
        let mut order: Vec<(String, Waiting)> = all.iter().map(|(uid, w)| (uid.clone(), w.clone())).collect();
        order.sort_by_key(|(_, w)| (Reverse(w.priority), !w.guaranteed, w.since));
        for (uid, waiting) in order {
            if judge(&uid, &waiting.requests, pods, allocatable).is_ok() {
                pods.insert(uid.clone(), waiting.requests);
                all.remove(&uid);
                waiting.inbox.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use serde_json::json;

    use super::*;

    fn list(cpu: &str) -> ResourceList {
        resources::parse(Some(&json!({"cpu": cpu, "memory": "1Mi"})))
    }

    fn node() -> Resources {
        Resources::from([("cpu".into(), Quantity("4".into())), ("memory".into(), Quantity("1Gi".into()))])
    }

    fn waiting(cpu: &str, priority: i32) -> Waiting {
        let inbox = Arc::new(Inbox::new(Arc::default()));
        Waiting { requests: list(cpu), priority, guaranteed: false, since: Instant::now(), inbox }
    }

    #[test]
    fn the_texts_are_upstreams() {
        let pods = HashMap::from([("a".to_owned(), list("2")), ("b".to_owned(), list("1"))]);
        assert_eq!(judge("b", &list("2"), &pods, &node()), Ok(()));
        assert_eq!(
            judge("b", &list("2500m"), &pods, &node()),
            Err(Refusal::Deferred(
                "Node didn't have enough resource: cpu, requested: 2500, used: 2000, capacity: 4000".into()
            ))
        );
        assert_eq!(
            judge("b", &list("5"), &pods, &node()),
            Err(Refusal::Infeasible(
                "Node didn't have enough capacity: cpu, requested: 5000, capacity: 4000".into()
            ))
        );
        let full = HashMap::from([("a".to_owned(), list("4")), ("b".to_owned(), list("1"))]);
        assert_eq!(judge("b", &list("500m"), &full, &node()), Ok(()), "less is always possible");
    }

    #[tokio::test]
    async fn what_becomes_free_goes_to_the_highest_priority_first() {
        let queue = WaitingResizes::default();
        let mut pods = HashMap::from([("a".to_owned(), list("1")), ("b".to_owned(), list("1"))]);
        queue.wait("a", waiting("3", 0));
        queue.wait("b", waiting("3", 7));
        queue.serve(&mut pods, &node());
        assert_eq!((pods["a"].clone(), pods["b"].clone()), (list("1"), list("3")));
        pods.remove("b");
        queue.serve(&mut pods, &node());
        assert_eq!(pods["a"], list("3"));
    }
}
