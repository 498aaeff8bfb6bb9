//! Nodes that stop reporting become `Unknown`, and conditions become taints, which the scheduler reads.

mod taints;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt, stream};
use kube::Client;
use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use sampan_api::meta::{format_time, list, str_at, str_of};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use crate::feed::{Change, Feeds};
use crate::kinds::{self, or_gone};
use crate::pods::PodIndex;
use crate::reconcile::{self, Next};

/// How long a node may go without renewing its Lease.
const GRACE: Duration = Duration::from_secs(50);
/// The conditions that the kubelet keeps, and that nobody knows when it is silent.
const CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// When a node was last heard of, by this machine's clock: the node's own may be wrong.
#[derive(Clone, Default)]
struct Heartbeats(Arc<Mutex<HashMap<String, (String, Instant)>>>);

impl Heartbeats {
    /// Notes a Lease's `renewTime`; only another one than before is a sign of life.
    fn renewed(&self, node: &str, renew_time: &str) {
        let mut beats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if beats.get(node).is_none_or(|(before, _)| before != renew_time) {
            beats.insert(node.to_owned(), (renew_time.to_owned(), Instant::now()));
        }
    }

    /// How long the node has been silent; a new one begins now.
    fn silence(&self, node: &str) -> Duration {
        let mut beats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        beats.entry(node.to_owned()).or_insert_with(|| (String::new(), Instant::now())).1.elapsed()
    }

    fn forget(&self, node: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(node);
    }
}

/// Runs the controller.
pub(crate) fn run(client: Client, pods: PodIndex, feeds: &mut Feeds) -> impl Future<Output = ()> + use<> {
    let heartbeats = Heartbeats::default();
    let leases = kinds::find("coordination.k8s.io", "leases");
    let beats = heartbeats.clone();
    let renewals = feeds.subscribe_to(leases, "kube-node-lease", "").filter_map(move |change| {
        if let Change::Set(lease) = change {
            let node = lease.metadata.name.as_deref().unwrap_or_default();
            beats.renewed(node, str_at(&lease.data, "/spec/renewTime"));
        }
        std::future::ready(None)
    });
    let nodes = feeds.subscribe("", "nodes").filter_map(|change| async move {
        match change {
            Change::Set(node) => node.metadata.name.clone(),
            Change::Gone(key, _) => Some(key.name),
            Change::Listed => None,
        }
    });
    reconcile::run("node lifecycle", stream::select(renewals, nodes), move |name: String| {
        let (client, pods, heartbeats) = (client.clone(), pods.clone(), heartbeats.clone());
        async move {
            let api = kinds::api::<DynamicObject>(&client, kinds::find("", "nodes"), "");
            let Some(mut node) = api.get_opt(&name).await? else {
                heartbeats.forget(&name);
                return Ok(Next::Wait);
            };
            let silence = heartbeats.silence(&name);
            if silence >= GRACE {
                if is_known(&node) {
                    tracing::warn!(
                        node = name,
                        "the node has not renewed its Lease for {}s",
                        silence.as_secs()
                    );
                    node = set_unknown(&api, &node).await?;
                }
                mark_pods(&client, &pods, &name).await?;
            }
            taints::set(&api, &node).await?;
            // A silent node that speaks again writes its conditions itself.
            Ok(if silence < GRACE { Next::After(GRACE - silence) } else { Next::After(GRACE) })
        }
    })
}

fn condition<'a>(node: &'a DynamicObject, condition: &str) -> Option<&'a Value> {
    list(&node.data, "/status/conditions").iter().find(|found| str_of(found, "type") == condition)
}

fn is_known(node: &DynamicObject) -> bool {
    condition(node, "Ready").is_none_or(|ready| str_of(ready, "status") != "Unknown")
}

/// Writes that nobody knows how the node is.
async fn set_unknown(
    api: &kube::Api<DynamicObject>,
    node: &DynamicObject,
) -> Result<DynamicObject, kube::Error> {
    let now = format_time(jiff::Timestamp::now());
    let conditions = CONDITIONS.map(|name| match condition(node, name) {
        Some(before) => json!({
            "type": name, "status": "Unknown", "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.",
            "lastHeartbeatTime": before["lastHeartbeatTime"], "lastTransitionTime": now,
        }),
        None => json!({
            "type": name, "status": "Unknown", "reason": "NodeStatusNeverUpdated",
            "message": "Kubelet never posted node status.",
            "lastHeartbeatTime": node.metadata.creation_timestamp, "lastTransitionTime": now,
        }),
    });
    let patch = Patch::Strategic(json!({"status": {"conditions": conditions}}));
    api.patch_status(node.metadata.name.as_deref().unwrap_or_default(), &PatchParams::default(), &patch).await
}

/// Pods of a silent node do not count as ready: Services should not send anything there.
async fn mark_pods(client: &Client, pods: &PodIndex, node: &str) -> Result<(), kube::Error> {
    let now = format_time(jiff::Timestamp::now());
    let mut failed = Ok(());
    for pod in pods.filter(|pod| pod.ready && pod.node == node) {
        let ready =
            json!({"type": "Ready", "status": "False", "reason": "NodeNotReady", "lastTransitionTime": now});
        let patch = json!({"metadata": {"uid": pod.uid}, "status": {"conditions": [ready]}});
        let api = kinds::api::<DynamicObject>(client, kinds::find("", "pods"), &pod.namespace);
        let patched = api.patch_status(&pod.name, &PatchParams::default(), &Patch::Strategic(&patch)).await;
        if let Err(error) = or_gone(patched) {
            // The others all the same; this one comes again.
            failed = Err(error);
        }
    }
    failed
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http_body_util::{BodyExt, Full};

    use super::*;
    use crate::pods::PodSummary;

    #[tokio::test]
    async fn a_pod_that_cannot_be_marked_keeps_no_other_from_it() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let path = request.uri().path().to_owned();
            seen.lock().unwrap().push(path.clone());
            let (code, answer) = match path.contains("/a/") {
                true => (
                    500,
                    json!({"kind": "Status", "status": "Failure", "code": 500, "message": "no", "reason": "InternalError"}),
                ),
                false => (200, json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b"}})),
            };
            let body = Full::new(bytes::Bytes::from(answer.to_string())).boxed();
            let answer = http::Response::builder().status(code).body(body).unwrap();
            std::future::ready(Ok::<_, std::convert::Infallible>(answer))
        });
        let client = Client::new(service, "default");
        let pods = PodIndex::default();
        for name in ["a", "b"] {
            let (namespace, name, node) = ("n".to_owned(), name.to_owned(), "silent".to_owned());
            pods.set(PodSummary { namespace, name, node, ready: true, ..PodSummary::default() });
        }
        assert!(mark_pods(&client, &pods, "silent").await.is_err());
        assert_eq!(
            *asked.lock().unwrap(),
            ["/api/v1/namespaces/n/pods/a/status", "/api/v1/namespaces/n/pods/b/status"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_changed_renewal_is_a_sign_of_life() {
        let beats = Heartbeats::default();
        assert_eq!(beats.silence("a"), Duration::ZERO, "a node that is new gets its time");
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(beats.silence("a"), Duration::from_secs(30));
        beats.renewed("a", "10:00:00");
        tokio::time::advance(GRACE + Duration::from_secs(1)).await;
        beats.renewed("a", "10:00:00");
        assert!(beats.silence("a") > GRACE);
        beats.renewed("a", "10:00:10");
        assert_eq!(beats.silence("a"), Duration::ZERO);
    }
}
