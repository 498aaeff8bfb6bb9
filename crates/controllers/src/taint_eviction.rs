//! Ends pods that do not tolerate a node's NoExecute taints: at once, or after `tolerationSeconds` counted from
//! the taint's `timeAdded`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, stream};
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::DynamicObject;
use sampan_api::meta::{format_time, list, str_at, str_of};
use sampan_api::taints::{tolerated, tolerates};
use serde_json::{Value, json};

use crate::feed::{Change, Feeds, Key};
use crate::kinds::{self, or_gone};
use crate::reconcile::{self, Next};

/// What the loop is asked to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PodOnNode {
    key: Key,
    node: String,
}

/// Where pods are and which NoExecute taints nodes have.
#[derive(Clone, Default)]
struct World(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Pods with a node, and the node.
    pods: HashMap<Key, String>,
    taints: HashMap<String, Vec<Value>>,
}

impl World {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pod is new or changed: it is to be looked at when its node has such taints.
    fn pod(&self, change: Change<DynamicObject>) -> Vec<PodOnNode> {
        let mut state = self.state();
        match change {
            Change::Set(pod) => {
                let (key, node) = (Key::of(&pod.metadata), str_at(&pod.data, "/spec/nodeName").to_owned());
                if node.is_empty() {
                    return Vec::new();
                }
                state.pods.insert(key.clone(), node.clone());
                let tainted = state.taints.get(&node).is_some_and(|taints| !taints.is_empty());
                if tainted { vec![PodOnNode { key, node }] } else { Vec::new() }
            }
            Change::Gone(key, _) => {
                state.pods.remove(&key);
                Vec::new()
            }
            Change::Listed => Vec::new(),
        }
    }

    /// A node's taints changed: all of its pods are to be looked at.
    fn node(&self, change: Change<DynamicObject>) -> Vec<PodOnNode> {
        let mut state = self.state();
        let (name, taints) = match change {
            Change::Set(node) => (
                node.metadata.name.clone().unwrap_or_default(),
                list(&node.data, "/spec/taints")
                    .iter()
                    .filter(|t| str_of(t, "effect") == "NoExecute")
                    .cloned()
                    .collect(),
            ),
            Change::Gone(key, _) => (key.name, Vec::new()),
            Change::Listed => return Vec::new(),
        };
        if state.taints.get(&name).map_or(&[][..], Vec::as_slice) == taints.as_slice() {
            return Vec::new();
        }
        let pods = state.pods.iter().filter(|(_, node)| **node == name);
        let all = pods.map(|(key, node)| PodOnNode { key: key.clone(), node: node.clone() }).collect();
        state.taints.insert(name, taints);
        all
    }

    fn taints_of(&self, node: &str) -> Vec<Value> {
        self.state().taints.get(node).cloned().unwrap_or_default()
    }
}

/// Runs the controller.
pub(crate) fn run(client: Client, feeds: &mut Feeds) -> impl Future<Output = ()> + use<> {
    let world = World::default();
    let (of_pods, of_nodes) = (world.clone(), world.clone());
    let pods = feeds.subscribe("", "pods").flat_map(move |change| stream::iter(of_pods.pod(change)));
    let nodes = feeds.subscribe("", "nodes").flat_map(move |change| stream::iter(of_nodes.node(change)));
    reconcile::run("taint eviction", stream::select(pods, nodes), move |subject: PodOnNode| {
        let (client, world) = (client.clone(), world.clone());
        async move {
            let taints = world.taints_of(&subject.node);
            if taints.is_empty() {
                return Ok(Next::Wait);
            }
            let api = kinds::api::<DynamicObject>(&client, kinds::find("", "pods"), &subject.key.namespace);
            let Some(pod) = api.get_opt(&subject.key.name).await? else { return Ok(Next::Wait) };
            let ended = matches!(str_at(&pod.data, "/status/phase"), "Succeeded" | "Failed");
            if str_at(&pod.data, "/spec/nodeName") != subject.node
                || pod.metadata.deletion_timestamp.is_some()
                || ended
            {
                return Ok(Next::Wait);
            }
            match time_left(&taints, list(&pod.data, "/spec/tolerations"), jiff::Timestamp::now()) {
                None => Ok(Next::Wait),
                Some(left) if left.is_zero() => evict(&client, &api, &pod).await.map(|()| Next::Wait),
                Some(left) => Ok(Next::After(left)),
            }
        }
    })
}

/// How long a pod may still stay: `None` for as long as it likes, zero when it has to go now.
fn time_left(taints: &[Value], tolerations: &[Value], now: jiff::Timestamp) -> Option<Duration> {
    let mut least = None;
    for taint in taints {
        if !tolerated(tolerations, taint) {
            return Some(Duration::ZERO);
        }
        // Of several tolerations of one taint the shortest counts; one without seconds says nothing.
        let seconds = tolerations
            .iter()
            .filter(|toleration| tolerates(toleration, taint))
            .filter_map(|toleration| toleration["tolerationSeconds"].as_i64())
            .min();
        let Some(seconds) = seconds else { continue };
        let added = taint["timeAdded"].as_str().and_then(|text| text.parse().ok()).unwrap_or(now);
        let until = added.saturating_add(jiff::SignedDuration::from_secs(seconds.max(0))).unwrap_or(now);
        let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
        least = Some(least.map_or(left, |least: Duration| least.min(left)));
    }
    least
}

/// Says why in the pod's status and deletes it, as upstream's taint manager does.
async fn evict(
    client: &Client,
    api: &kube::Api<DynamicObject>,
    pod: &DynamicObject,
) -> Result<(), kube::Error> {
    let (name, uid) = (pod.metadata.name.as_deref().unwrap_or_default(), pod.metadata.uid.clone());
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint",
        "lastTransitionTime": format_time(jiff::Timestamp::now()),
    });
    let patch = json!({"metadata": {"uid": uid}, "status": {"conditions": [condition]}});
    tracing::info!(pod = name, "deleted because of a NoExecute taint");
    if or_gone(api.patch_status(name, &PatchParams::default(), &Patch::Strategic(&patch)).await)?.is_none() {
        return Ok(());
    }
    announce(client, pod).await;
    let preconditions = Preconditions { uid, resource_version: None };
    let delete = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match or_gone(api.delete(name, &delete).await) {
        // Another pod of the same name by now.
        Err(error) if kinds::code(&error) == 409 => Ok(()),
        result => result.map(drop),
    }
}

/// The event of upstream's taint manager. It is not worth failing for.
async fn announce(client: &Client, pod: &DynamicObject) {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let name = pod.metadata.name.clone().unwrap_or_default();
    let now = format_time(jiff::Timestamp::now());
    let stamp = format!("{:x}", jiff::Timestamp::now().as_nanosecond());
    let event = kinds::object(
        kinds::find("", "events"),
        &namespace,
        &format!("{name}.{stamp}"),
        json!({
            "type": "Normal", "reason": "TaintManagerEviction",
            "message": format!("Marking for deletion Pod {namespace}/{name}"),
            "involvedObject": {"kind": "Pod", "apiVersion": "v1", "name": name, "namespace": namespace, "uid": pod.metadata.uid},
            "source": {"component": "taint-eviction-controller"},
            "firstTimestamp": now, "lastTimestamp": now, "count": 1,
        }),
    );
    let events = kinds::api::<DynamicObject>(client, kinds::find("", "events"), &namespace);
    if let Err(error) = events.create(&Default::default(), &event).await {
        tracing::debug!(%error, "event of an eviction");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_pod_stays_as_long_as_all_taints_are_tolerated() {
        let now: jiff::Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let taint =
            |key: &str| json!({"key": key, "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:30Z"});
        let tolerates = |key: &str, seconds: Option<i64>| {
            let mut toleration = json!({"key": key, "operator": "Exists", "effect": "NoExecute"});
            if let Some(seconds) = seconds {
                toleration["tolerationSeconds"] = json!(seconds);
            }
            toleration
        };
        let left = |taints: &[Value], tolerations: &[Value]| time_left(taints, tolerations, now);
        assert_eq!(left(&[taint("a")], &[]), Some(Duration::ZERO));
        assert_eq!(left(&[taint("a")], &[tolerates("a", None)]), None);
        assert_eq!(left(&[taint("a")], &[tolerates("a", Some(300))]), Some(Duration::from_secs(270)));
        assert_eq!(left(&[taint("a")], &[tolerates("a", Some(10))]), Some(Duration::ZERO));
        let both = [tolerates("a", Some(300)), tolerates("b", Some(60))];
        assert_eq!(left(&[taint("a"), taint("b")], &both), Some(Duration::from_secs(30)));
        assert_eq!(left(&[taint("a"), taint("c")], &both), Some(Duration::ZERO));
    }
}
