//! Keeps the status of PodDisruptionBudgets: how many of their pods are healthy, how many must be, and so how
//! many evictions the API server may allow now.
//!
//! Without workload controllers a pod counts for itself: a percentage is of the pods that match, as upstream
//! does for pods without a controller that has a scale; `expectedPods` is then their number.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use sampan_api::meta::{format_time, list, str_of};
use sampan_api::selector::LabelSelector;
use serde_json::{Map, Value, json};
use tokio::sync::broadcast::error::RecvError;

use crate::feed::{Change, Feeds, Key};
use crate::kinds::{self, or_gone};
use crate::pods::{PodIndex, PodSummary};
use crate::reconcile::{self, Next};

/// How long an eviction that was allowed counts although the pod is still there.
const DISRUPTED: Duration = Duration::from_secs(120);

/// Runs the controller.
pub(crate) fn run(client: Client, pods: PodIndex, feeds: &mut Feeds) -> impl Future<Output = ()> + use<> {
    let known = std::sync::Arc::new(std::sync::Mutex::new(std::collections::HashSet::<Key>::new()));
    let of_budgets = known.clone();
    let budgets = feeds.subscribe("policy", "poddisruptionbudgets").filter_map(move |change| {
        let mut known = of_budgets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        std::future::ready(match change {
            Change::Set(budget) => {
                let key = Key::of(&budget.metadata);
                known.insert(key.clone());
                Some(key)
            }
            Change::Gone(key, _) => {
                known.remove(&key);
                None
            }
            Change::Listed => None,
        })
    });
    let changes = stream::unfold(pods.changes(), |mut changes| async move {
        let namespace = match changes.recv().await {
            Ok(change) => change.now.or(change.before).map(|pod| pod.namespace.clone()),
            // Too many at once: all are looked at.
            Err(RecvError::Lagged(_)) => None,
            Err(RecvError::Closed) => return None,
        };
        Some((namespace, changes))
    });
    let of_pods = changes.flat_map(move |namespace| {
        let known = known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let keys: Vec<Key> = known
            .iter()
            .filter(|key| namespace.as_ref().is_none_or(|namespace| key.namespace == *namespace))
            .cloned()
            .collect();
        stream::iter(keys)
    });
    reconcile::run("disruption", stream::select(budgets, of_pods), move |key: Key| {
        let (client, pods) = (client.clone(), pods.clone());
        async move {
            if !pods.listed() {
                return Ok(Next::After(Duration::from_millis(50)));
            }
            let api = kinds::api::<DynamicObject>(
                &client,
                kinds::find("policy", "poddisruptionbudgets"),
                &key.namespace,
            );
            let Some(budget) = api.get_opt(&key.name).await? else { return Ok(Next::Wait) };
            let status = status(&budget, &pods.in_namespace(&key.namespace), Timestamp::now());
            let again = status.recheck;
            if let Some(status) = status.changed(&budget) {
                let version = budget.metadata.resource_version.as_deref();
                let patch = json!({"metadata": {"resourceVersion": version}, "status": status});
                or_gone(api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(&patch)).await)?;
            }
            Ok(again.map_or(Next::Wait, Next::After))
        }
    })
}

/// A status, and when it has to be looked at again although nothing changes.
struct BudgetStatus {
    value: Value,
    recheck: Option<Duration>,
}

impl BudgetStatus {
    /// The status as a merge patch when it is not there yet.
    fn changed(self, budget: &DynamicObject) -> Option<Value> {
        let old = &budget.data["status"];
        let mut new = self.value;
        let same =
            ["currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods", "observedGeneration"]
                .iter()
                .all(|field| old[*field] == new[*field]);
        let old_pods = old["disruptedPods"].as_object().cloned().unwrap_or_default();
        let new_pods = new["disruptedPods"].as_object().cloned().unwrap_or_default();
        let conditions_same =
            list(&budget.data, "/status/conditions") == list(&json!({"status": new}), "/status/conditions");
        if same && conditions_same && old_pods == new_pods {
            return None;
        }
        // In a merge patch what is to go is null.
        for name in old_pods.keys().filter(|name| !new_pods.contains_key(*name)) {
            new["disruptedPods"][name] = Value::Null;
        }
        Some(new)
    }
}

fn status(budget: &DynamicObject, pods: &[std::sync::Arc<PodSummary>], now: Timestamp) -> BudgetStatus {
    let selector = LabelSelector::from_object(budget.data.pointer("/spec/selector"));
    let matching: Vec<&PodSummary> = match &selector {
        Ok(selector) => pods
            .iter()
            .map(AsRef::as_ref)
            .filter(|pod| !pod.ended && selector.matches_labels(Some(&labels(&pod.labels))))
            .collect(),
        Err(_) => Vec::new(),
    };
    let (disrupted, recheck) = disrupted(budget, &matching, now);
    let healthy = matching
        .iter()
        .filter(|pod| pod.ready && !pod.deleting && !disrupted.contains_key(&pod.name))
        .count();
    let expected = matching.len();
    let desired = desired(&budget.data["spec"], expected);
    let allowed = if expected == 0 { 0 } else { healthy.saturating_sub(desired) };
    let generation = budget.metadata.generation.unwrap_or(0);
    let value = json!({
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "disruptionsAllowed": allowed,
        "expectedPods": expected,
        "observedGeneration": generation,
        "disruptedPods": disrupted,
        "conditions": conditions(budget, allowed > 0, generation, now),
    });
    BudgetStatus { value, recheck }
}

fn labels(labels: &BTreeMap<String, String>) -> Map<String, Value> {
    labels.iter().map(|(key, value)| (key.clone(), json!(value))).collect()
}

/// Pods whose eviction was allowed and that are still there: they count as unhealthy for two minutes.
fn disrupted(
    budget: &DynamicObject,
    pods: &[&PodSummary],
    now: Timestamp,
) -> (Map<String, Value>, Option<Duration>) {
    let mut kept = Map::new();
    let mut recheck: Option<Duration> = None;
    let noted = budget.data.pointer("/status/disruptedPods").and_then(Value::as_object);
    for (name, since) in noted.into_iter().flatten() {
        let Some(at) = since.as_str().and_then(|text| text.parse::<Timestamp>().ok()) else { continue };
        let there = pods.iter().any(|pod| pod.name == *name && !pod.deleting);
        let until = at.saturating_add(SignedDuration::try_from(DISRUPTED).unwrap_or_default()).unwrap_or(at);
        let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
        if there && !left.is_zero() {
            kept.insert(name.clone(), since.clone());
            recheck = Some(recheck.map_or(left, |recheck| recheck.min(left)));
        }
    }
    (kept, recheck)
}

/// How many pods must be healthy: `minAvailable`, or all but `maxUnavailable`; percentages are rounded up.
fn desired(spec: &Value, expected: usize) -> usize {
    let scaled = |value: &Value| -> Option<usize> {
        match value {
            Value::Number(number) => usize::try_from(number.as_u64()?).ok(),
            Value::String(text) => {
                let percent: usize = text.strip_suffix('%')?.parse().ok()?;
                Some((percent * expected).div_ceil(100))
            }
            _ => None,
        }
    };
    if let Some(max) = scaled(&spec["maxUnavailable"]) {
        return expected.saturating_sub(max);
    }
    scaled(&spec["minAvailable"]).unwrap_or(expected.min(1))
}

fn conditions(budget: &DynamicObject, allowed: bool, generation: i64, now: Timestamp) -> Vec<Value> {
    let (status, reason) = if allowed { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let old = list(&budget.data, "/status/conditions");
    let before = old.iter().find(|condition| str_of(condition, "type") == "DisruptionAllowed");
    let since = before
        .filter(|before| str_of(before, "status") == status)
        .and_then(|before| before["lastTransitionTime"].as_str().map(str::to_owned))
        .unwrap_or_else(|| format_time(now));
    let others = old.iter().filter(|condition| str_of(condition, "type") != "DisruptionAllowed").cloned();
    others
        .chain([json!({"type": "DisruptionAllowed", "status": status, "reason": reason, "message": "",
            "observedGeneration": generation, "lastTransitionTime": since})])
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;

    fn budget(spec: Value, status: Value) -> DynamicObject {
        serde_json::from_value(json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": "b", "namespace": "n", "generation": 2}, "spec": spec, "status": status}))
        .unwrap()
    }

    fn pod(name: &str, ready: bool) -> Arc<PodSummary> {
        let labels = BTreeMap::from([("app".to_owned(), "a".to_owned())]);
        Arc::new(PodSummary {
            name: name.into(),
            namespace: "n".into(),
            labels,
            ready,
            ..PodSummary::default()
        })
    }

    fn now() -> Timestamp {
        "2026-01-01T00:10:00Z".parse().unwrap()
    }

    #[test]
    fn budgets_allow_what_is_healthy_beyond_what_must_be() {
        let pods = [pod("a", true), pod("b", true), pod("c", false)];
        let selector = json!({"matchLabels": {"app": "a"}});
        let allowed = |limits: Value| {
            let mut spec = limits;
            spec["selector"] = selector.clone();
            let status = status(&budget(spec, json!({})), &pods, now()).value;
            (
                status["currentHealthy"].as_u64().unwrap(),
                status["desiredHealthy"].as_u64().unwrap(),
                status["disruptionsAllowed"].as_u64().unwrap(),
            )
        };
        assert_eq!(allowed(json!({"minAvailable": 1})), (2, 1, 1));
        assert_eq!(allowed(json!({"minAvailable": "50%"})), (2, 2, 0));
        assert_eq!(allowed(json!({"maxUnavailable": 1})), (2, 2, 0));
        assert_eq!(allowed(json!({"maxUnavailable": 2})), (2, 1, 1));
        let none = status(
            &budget(json!({"minAvailable": 0, "selector": {"matchLabels": {"app": "x"}}}), json!({})),
            &pods,
            now(),
        );
        assert_eq!(none.value["disruptionsAllowed"], 0);
        assert_eq!(none.value["conditions"][0]["reason"], "InsufficientPods");
    }

    #[test]
    fn an_allowed_eviction_counts_until_it_happened_or_was_forgotten() {
        let spec = json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}});
        let pods = [pod("a", true), pod("b", true)];
        let noted = json!({"disruptedPods": {"a": "2026-01-01T00:09:00Z", "b": "2026-01-01T00:07:00Z", "c": "2026-01-01T00:09:59Z"}});
        let budget = budget(spec, noted);
        let status = status(&budget, &pods, now());
        assert_eq!(status.value["disruptedPods"], json!({"a": "2026-01-01T00:09:00Z"}));
        assert_eq!(
            (status.value["currentHealthy"].as_u64(), status.recheck),
            (Some(1), Some(Duration::from_secs(60)))
        );
        let patch = status.changed(&budget).unwrap();
        assert_eq!(patch["disruptedPods"], json!({"a": "2026-01-01T00:09:00Z", "b": null, "c": null}));
    }
}
