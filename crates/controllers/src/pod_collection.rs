//! Deletes pods that nobody else will: ended ones beyond a threshold, those whose node is gone, and those that were
//! deleted before they had a node.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::StreamExt;
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::DynamicObject;
use sampan_api::meta::format_time;
use serde_json::json;
use tokio::time::{Duration, Instant, MissedTickBehavior, interval};

use crate::feed::{Change, Feeds};
use crate::kinds::{self, or_gone};
use crate::pods::{PodIndex, PodSummary};

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(20);
/// How long a node has to be gone before its pods are.
const QUARANTINE: Duration = Duration::from_secs(40);

/// Runs the controller, which keeps `ended_pods` of the pods that have ended.
pub(crate) fn run(
    client: Client,
    pods: PodIndex,
    ended_pods: usize,
    feeds: &mut Feeds,
) -> impl Future<Output = ()> + use<> {
    let mut changes = feeds.subscribe("", "nodes");
    async move {
        let mut nodes = HashSet::new();
        let mut listed = false;
        let mut missing: HashMap<String, Instant> = HashMap::new();
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                change = changes.next() => match change {
                    Some(Change::Set(node)) => drop(nodes.insert(node.metadata.name.clone().unwrap_or_default())),
                    Some(Change::Gone(key, _)) => drop(nodes.remove(&key.name)),
                    Some(Change::Listed) => listed = true,
                    None => return,
                },
                _ = ticks.tick(), if listed && pods.listed() => {
                    let result = collect(&client, &pods, ended_pods, &nodes, &mut missing).await;
                    if let Err(error) = result {
                        tracing::warn!(%error, "pods cannot be collected; trying again");
                    }
                }
            }
        }
    }
}

async fn collect(
    client: &Client,
    pods: &PodIndex,
    ended_pods: usize,
    nodes: &HashSet<String>,
    missing: &mut HashMap<String, Instant>,
) -> Result<(), kube::Error> {
    for pod in surplus(pods.filter(|pod| pod.ended), ended_pods) {
        delete(client, &pod).await?;
    }
    for pod in pods.filter(|pod| pod.deleting && pod.node.is_empty()) {
        delete(client, &pod).await?;
    }
    let lost = pods.filter(|pod| !pod.node.is_empty() && !nodes.contains(&pod.node));
    missing.retain(|node, _| lost.iter().any(|pod| pod.node == *node));
    for pod in lost {
        let since = *missing.entry(pod.node.clone()).or_insert_with(Instant::now);
        if since.elapsed() < QUARANTINE {
            continue;
        }
        let api = kinds::api::<DynamicObject>(client, kinds::find("", "nodes"), "");
        if api.get_opt(&pod.node).await?.is_none() {
            fail(client, &pod).await?;
            delete(client, &pod).await?;
        }
    }
    Ok(())
}

/// The oldest of the pods beyond the number that is kept.
fn surplus(mut ended: Vec<Arc<PodSummary>>, keep: usize) -> Vec<Arc<PodSummary>> {
    ended.sort_by(|one, other| (one.created, &one.name).cmp(&(other.created, &other.name)));
    ended.truncate(ended.len().saturating_sub(keep));
    ended
}

/// Says why the pod ends: nobody else can any more.
async fn fail(client: &Client, pod: &PodSummary) -> Result<(), kube::Error> {
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
        "message": "PodGC: node no longer exists",
        "lastTransitionTime": format_time(jiff::Timestamp::now()),
    });
    let patch =
        json!({"metadata": {"uid": pod.uid}, "status": {"phase": "Failed", "conditions": [condition]}});
    let api = kinds::api::<DynamicObject>(client, kinds::find("", "pods"), &pod.namespace);
    or_gone(api.patch_status(&pod.name, &PatchParams::default(), &Patch::Strategic(&patch)).await)?;
    Ok(())
}

async fn delete(client: &Client, pod: &PodSummary) -> Result<(), kube::Error> {
    tracing::info!(namespace = pod.namespace, pod = pod.name, "collecting a pod that nobody runs");
    let preconditions = Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
    let now = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default().grace_period(0) };
    let api = kinds::api::<DynamicObject>(client, kinds::find("", "pods"), &pod.namespace);
    match or_gone(api.delete(&pod.name, &now).await) {
        // Another pod of the same name by now.
        Err(error) if kinds::code(&error) == 409 => Ok(()),
        result => result.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_ended_pods_beyond_the_threshold_go() {
        let pod = |name: &str, second| {
            let created = jiff::Timestamp::from_second(second).ok();
            Arc::new(PodSummary { name: name.into(), created, ..PodSummary::default() })
        };
        let pods = vec![pod("new", 30), pod("old", 10), pod("middle", 20)];
        let names = |keep| surplus(pods.clone(), keep).iter().map(|pod| pod.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(1), ["old", "middle"]);
        assert!(names(3).is_empty() && names(10).is_empty());
    }
}
