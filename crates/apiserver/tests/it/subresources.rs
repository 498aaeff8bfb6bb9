//! Parts of objects: status, scale, binding, eviction, ephemeral containers.

use serde_json::{Value, json};

use crate::harness::{Api, PODS};

#[tokio::test]
async fn a_binding_stands() {
    let api = Api::start().await;
    api.pod("p", None).await;
    let bind = |node: &str| json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": node}});
    let done = api.post(&format!("{PODS}/p/binding"), bind("a")).await.expect(201);
    assert_eq!((done["kind"].as_str(), done["status"].as_str()), (Some("Status"), Some("Success")));
    let pod = api.get(&format!("{PODS}/p")).await.expect(200);
    assert_eq!(pod["spec"]["nodeName"], "a");
    let condition =
        pod["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "PodScheduled").unwrap();
    assert_eq!(condition["status"], "True");
    let again = api.post("/api/v1/namespaces/default/bindings", bind("b")).await;
    assert_eq!(again.code, 409);
    assert_eq!(
        again.message(),
        r#"Operation cannot be fulfilled on pods/binding "p": pod p is already assigned to node "a""#
    );
    let wrong = json!({"metadata": {"name": "p"}, "target": {"kind": "Pod"}});
    assert_eq!(api.post(&format!("{PODS}/p/binding"), wrong).await.code, 422);
    assert_eq!(api.post(&format!("{PODS}/none/binding"), json!({"target": {"name": "a"}})).await.code, 404);
}

#[tokio::test]
async fn pod_46_the_status_is_written_apart_from_the_rest() {
    let api = Api::start().await;
    api.pod("p", Some("a")).await;
    let path = format!("{PODS}/p");
    let mut pod = api.get(&path).await.expect(200);
    pod["status"]["phase"] = json!("Running");
    pod["metadata"]["labels"] = json!({"x": "1"});
    let written = api.put(&format!("{path}/status"), pod).await.expect(200);
    assert_eq!(written["status"]["phase"], "Running");
    assert_eq!(written["spec"]["nodeName"], "a");
    // And the other way round.
    let patched = api
        .merge(&path, json!({"status": {"phase": "Failed"}, "metadata": {"labels": {"y": "1"}}}))
        .await
        .expect(200);
    assert_eq!(patched["status"]["phase"], "Running");
    assert_eq!(patched["metadata"]["labels"]["y"], "1");
    assert_eq!(api.get(&format!("{path}/status")).await.expect(200)["status"]["phase"], "Running");
    assert_eq!(api.get(&format!("{path}/nonsense")).await.code, 404);
}

#[tokio::test]
async fn deployments_are_scaled() {
    let api = Api::start().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    api.post(path, deployment).await.expect(201);
    let mut scale = api.get(&format!("{path}/d/scale")).await.expect(200);
    assert_eq!(
        (scale["kind"].as_str(), scale["apiVersion"].as_str()),
        (Some("Scale"), Some("autoscaling/v1"))
    );
    assert_eq!(
        (scale["spec"]["replicas"].as_i64(), scale["status"]["selector"].as_str()),
        (Some(2), Some("a=b"))
    );
    scale["spec"]["replicas"] = json!(5);
    let put = api.put(&format!("{path}/d/scale"), scale.clone()).await.expect(200);
    assert_eq!(put["spec"]["replicas"], 5);
    assert_eq!(api.put(&format!("{path}/d/scale"), scale).await.code, 409);
    api.merge(&format!("{path}/d/scale"), json!({"spec": {"replicas": 1}})).await.expect(200);
    assert_eq!(api.get(&format!("{path}/d")).await.expect(200)["spec"]["replicas"], 1);
    assert_eq!(api.merge(&format!("{path}/d/scale"), json!({"spec": {"replicas": -1}})).await.code, 422);
}

const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

/// A running pod that the budget `b` selects.
async fn budgeted_pod(api: &Api, name: &str, ready: &str) {
    let running = json!({"metadata": {"labels": {"app": "x"}},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
    api.pod(name, Some("a")).await;
    api.merge(&format!("{PODS}/{name}"), running.clone()).await.expect(200);
    api.merge(&format!("{PODS}/{name}/status"), running).await.expect(200);
}

/// Makes or changes the budget `b`, and says what its controller would.
async fn budget(api: &Api, more: Value, mut status: Value) {
    let budget = json!({"metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}});
    api.post(BUDGETS, budget).await;
    let made = api.merge(&format!("{BUDGETS}/b"), json!({"spec": more})).await.expect(200);
    status["observedGeneration"] = made["metadata"]["generation"].clone();
    status["expectedPods"] = json!(2);
    api.merge(&format!("{BUDGETS}/b/status"), json!({"status": status})).await.expect(200);
}

#[tokio::test]
async fn an_unready_pod_is_evicted_without_a_charge() {
    let api = Api::start().await;
    for name in ["broken", "spoilt"] {
        budgeted_pod(&api, name, "False").await;
    }
    let evict = async |name: &str, options: Value| {
        let body = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name},
            "deleteOptions": options});
        api.post(&format!("{PODS}/{name}/eviction"), body).await.code
    };
    // Too few are healthy: the unready one may be about to become so.
    let few = json!({"disruptionsAllowed": 0, "desiredHealthy": 2, "currentHealthy": 1});
    budget(&api, json!({}), few.clone()).await;
    assert_eq!(evict("broken", json!({})).await, 429);
    // Those it protects are there without it.
    budget(&api, json!({}), json!({"disruptionsAllowed": 0, "desiredHealthy": 2, "currentHealthy": 2})).await;
    let stale = json!({"preconditions": {"resourceVersion": "1"}});
    assert_eq!(evict("broken", stale).await, 409);
    assert_eq!(evict("broken", json!({})).await, 201);
    assert!(
        api.get(&format!("{PODS}/broken")).await.expect(200)["metadata"]["deletionTimestamp"].is_string()
    );
    budget(&api, json!({"unhealthyPodEvictionPolicy": "IfHealthyBudget"}), few.clone()).await;
    assert_eq!(evict("spoilt", json!({})).await, 429);
    let unknown = json!({"spec": {"unhealthyPodEvictionPolicy": "Sometimes"}});
    assert_eq!(api.merge(&format!("{BUDGETS}/b"), unknown).await.code, 422);
    budget(&api, json!({"unhealthyPodEvictionPolicy": "AlwaysAllow"}), few).await;
    assert_eq!(evict("spoilt", json!({})).await, 201);
    let left = api.get(&format!("{BUDGETS}/b")).await.expect(200);
    assert!(left["status"]["disruptedPods"].is_null(), "{left}");
}

#[tokio::test]
async fn an_eviction_heeds_the_budget() {
    let api = Api::start().await;
    let evict =
        |name: &str| json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    for name in ["p", "q"] {
        budgeted_pod(&api, name, "True").await;
    }
    budget(&api, json!({}), json!({"disruptionsAllowed": 1, "desiredHealthy": 1, "currentHealthy": 2})).await;
    // What is insisted on is the version before the eviction notes itself.
    let version = api.get(&format!("{PODS}/p")).await.expect(200)["metadata"]["resourceVersion"].clone();
    let mut insists = evict("p");
    insists["deleteOptions"] = json!({"preconditions": {"resourceVersion": version}});
    api.post(&format!("{PODS}/p/eviction"), insists).await.expect(201);
    let p = api.get(&format!("{PODS}/p")).await.expect(200);
    assert!(p["metadata"]["deletionTimestamp"].is_string());
    assert!(p["status"]["conditions"].as_array().unwrap().iter().any(|c| c["type"] == "DisruptionTarget"));
    // A pod of the name of another is not told that it goes.
    let mut another = evict("q");
    another["deleteOptions"] = json!({"preconditions": {"uid": "of-another"}});
    api.post(&format!("{PODS}/q/eviction"), another).await.expect(409);
    let q = api.get(&format!("{PODS}/q")).await.expect(200);
    assert!(!q["status"]["conditions"].as_array().unwrap().iter().any(|c| c["type"] == "DisruptionTarget"));
    let refused = api.post(&format!("{PODS}/q/eviction"), evict("q")).await;
    assert_eq!(refused.code, 429);
    assert_eq!(refused.message(), "Cannot evict pod as it would violate the pod's disruption budget.");
    assert_eq!(
        refused.json()["details"]["causes"][0]["message"],
        "The disruption budget b needs 1 healthy pods and has 2 currently"
    );
}

#[tokio::test]
async fn pod_47_ephemeral_containers_come_by_their_own_path() {
    let api = Api::start().await;
    api.pod("p", Some("a")).await;
    let body = json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": "i"}]}});
    let headers = [("content-type", "application/strategic-merge-patch+json")];
    let path = format!("{PODS}/p/ephemeralcontainers");
    let patched = api.call(http::Method::PATCH, &path, &headers, body.to_string().into()).await.expect(200);
    assert_eq!(patched["spec"]["ephemeralContainers"][0]["name"], "debug");
}
