//! Deletion: grace, finalizers, preconditions, collections, namespaces.

use serde_json::json;

use crate::harness::{Api, PODS, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn pod_30_graceful_deletion_marks_the_pod() {
    let api = Api::start().await;
    api.pod("p", Some("n")).await;
    let before = api.get(&format!("{PODS}/p")).await.expect(200);
    let deleted = api.delete(&format!("{PODS}/p")).await.expect(200);
    assert_eq!(deleted["metadata"]["deletionGracePeriodSeconds"], 30);
    let at = deleted["metadata"]["deletionTimestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let left = at.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((27..=30).contains(&left), "{left}");
    let generation = |pod: &serde_json::Value| pod["metadata"]["generation"].as_i64().unwrap_or_default();
    if generation(&before) > 0 {
        assert_eq!(generation(&deleted), generation(&before) + 1);
    }
    // It is still there.
    api.get(&format!("{PODS}/p")).await.expect(200);
}

#[tokio::test]
async fn pod_31_an_unscheduled_or_finished_pod_goes_at_once() {
    let api = Api::start().await;
    api.pod("unscheduled", None).await;
    api.delete(&format!("{PODS}/unscheduled")).await.expect(200);
    assert_eq!(api.get(&format!("{PODS}/unscheduled")).await.code, 404);

    api.pod("finished", Some("n")).await;
    api.merge(&format!("{PODS}/finished/status"), json!({"status": {"phase": "Succeeded"}}))
        .await
        .expect(200);
    api.delete(&format!("{PODS}/finished")).await.expect(200);
    assert_eq!(api.get(&format!("{PODS}/finished")).await.code, 404);

    api.pod("zero", Some("n")).await;
    let last = api.delete(&format!("{PODS}/zero?gracePeriodSeconds=0")).await.expect(200);
    assert_eq!(last["kind"], "Pod");
    assert_eq!(api.get(&format!("{PODS}/zero")).await.code, 404);

    api.pod("negative", Some("n")).await;
    let marked = api.delete(&format!("{PODS}/negative?gracePeriodSeconds=-5")).await.expect(200);
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 1);
}

#[tokio::test]
async fn pod_32_a_second_delete_only_shortens() {
    let api = Api::start().await;
    api.pod("p", Some("n")).await;
    let path = format!("{PODS}/p");
    let first = api.delete_with(&path, json!({"gracePeriodSeconds": 20})).await.expect(200);
    for longer in [20, 60] {
        let same = api.delete_with(&path, json!({"gracePeriodSeconds": longer})).await.expect(200);
        assert_eq!(same["metadata"]["deletionTimestamp"], first["metadata"]["deletionTimestamp"]);
        assert_eq!(same["metadata"]["deletionGracePeriodSeconds"], 20);
    }
    let same = api.delete(&path).await.expect(200);
    assert_eq!(same["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let shorter = api.delete_with(&path, json!({"gracePeriodSeconds": 5})).await.expect(200);
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    assert!(
        shorter["metadata"]["deletionTimestamp"].as_str() < first["metadata"]["deletionTimestamp"].as_str()
    );
    api.delete_with(&path, json!({"gracePeriodSeconds": 0})).await.expect(200);
    assert_eq!(api.get(&path).await.code, 404);
}

#[tokio::test]
async fn watchers_see_the_mark_and_then_the_end() {
    let api = Api::start().await;
    api.pod("p", Some("n")).await;
    let mut watch = api.watch(&format!("{PODS}?watch=true")).await;
    assert_eq!(watch.brief().await, "ADDED p");
    api.delete(&format!("{PODS}/p")).await.expect(200);
    assert_eq!(watch.brief().await, "MODIFIED p");
    api.delete(&format!("{PODS}/p?gracePeriodSeconds=0")).await.expect(200);
    let mut event = watch.next().await;
    if event["type"] == "MODIFIED" {
        assert_eq!(event["object"]["metadata"]["deletionGracePeriodSeconds"], 0);
        event = watch.next().await;
    }
    assert_eq!(event["type"], "DELETED");
    assert_eq!(event["object"]["metadata"]["deletionGracePeriodSeconds"], 0);
}

#[tokio::test]
async fn finalizers_keep_an_object() {
    let api = Api::start().await;
    api.post(MAPS, json!({"metadata": {"name": "a", "finalizers": ["example.com/f"]}})).await.expect(201);
    let marked = api.delete(&format!("{MAPS}/a")).await.expect(200);
    assert_eq!(marked["kind"], "ConfigMap");
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    // Writing it does not undo that.
    let written = api
        .put(&format!("{MAPS}/a"), json!({"metadata": {"name": "a", "finalizers": ["example.com/f"]}}))
        .await;
    assert!(written.expect(200)["metadata"]["deletionTimestamp"].is_string());
    api.merge(&format!("{MAPS}/a"), json!({"metadata": {"finalizers": null}})).await.expect(200);
    assert_eq!(api.get(&format!("{MAPS}/a")).await.code, 404);
}

#[tokio::test]
async fn propagation_becomes_finalizers() {
    let api = Api::start().await;
    for (name, policy, finalizer) in [("a", "Foreground", "foregroundDeletion"), ("b", "Orphan", "orphan")] {
        api.config_map(name, json!({})).await;
        let marked = api
            .delete_with(&format!("{MAPS}/{name}"), json!({"propagationPolicy": policy}))
            .await
            .expect(200);
        assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
    }
    api.delete_with(&format!("{MAPS}/a"), json!({"propagationPolicy": "Background"})).await.expect(200);
    assert_eq!(api.get(&format!("{MAPS}/a")).await.code, 404);
    let both = json!({"propagationPolicy": "Background", "orphanDependents": true});
    assert_eq!(api.delete_with(&format!("{MAPS}/b"), both).await.code, 422);
}

#[tokio::test]
async fn preconditions_must_hold() {
    let api = Api::start().await;
    let version = api.config_map("a", json!({})).await;
    let wrong = api.delete_with(&format!("{MAPS}/a"), json!({"preconditions": {"uid": "x"}})).await;
    assert_eq!(wrong.code, 409);
    assert!(wrong.message().contains("the UID in the precondition (x) does not match the UID in record ("));
    let wrong =
        api.delete_with(&format!("{MAPS}/a"), json!({"preconditions": {"resourceVersion": "1"}})).await;
    assert_eq!(wrong.code, 409);
    api.delete_with(&format!("{MAPS}/a"), json!({"preconditions": {"resourceVersion": version}}))
        .await
        .expect(200);
}

#[tokio::test]
async fn pod_46_collections_are_deleted_by_label() {
    let api = Api::start().await;
    for (name, label) in [("a", "1"), ("b", "2"), ("c", "1")] {
        let mut pod = pod(name);
        pod["metadata"]["labels"] = json!({"x": label});
        api.post(PODS, pod).await.expect(201);
    }
    let deleted = api.delete(&format!("{PODS}?labelSelector=x%3D1")).await.expect(200);
    assert_eq!(deleted["kind"], "PodList");
    assert_eq!(deleted["items"].as_array().unwrap().len(), 2);
    let left = api.get(PODS).await.expect(200);
    assert_eq!(left["items"][0]["metadata"]["name"], "b");
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_namespace_goes_when_it_is_finalized() {
    let api = Api::start().await;
    let path = "/api/v1/namespaces/gone";
    let made = api.post("/api/v1/namespaces", json!({"metadata": {"name": "gone"}})).await.expect(201);
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(made["status"]["phase"], "Active");
    let marked = api.delete(path).await.expect(200);
    assert_eq!(marked["status"]["phase"], "Terminating");
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let refused = api.post(&format!("{path}/configmaps"), json!({"metadata": {"name": "x"}})).await;
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.message(),
        r#"configmaps "x" is forbidden: unable to create new content in namespace gone because it is being terminated"#
    );
    assert_eq!(refused.json()["details"]["causes"][0]["reason"], "NamespaceTerminating");
    // Deleting it again changes nothing.
    api.delete(path).await.expect(200);
    let mut object = api.get(path).await.expect(200);
    object["spec"]["finalizers"] = json!([]);
    api.put(&format!("{path}/finalize"), object).await.expect(200);
    assert_eq!(api.get(path).await.code, 404);
}

#[tokio::test]
async fn three_namespaces_stay() {
    let api = Api::start().await;
    for name in ["default", "kube-system", "kube-public"] {
        let answer = api.delete(&format!("/api/v1/namespaces/{name}")).await;
        assert_eq!(answer.code, 403);
        assert_eq!(
            answer.message(),
            format!("namespaces {name:?} is forbidden: this namespace may not be deleted")
        );
    }
}
