//! RuntimeClasses as objects, and pods that name them.

use serde_json::{Value, json};

use crate::harness::{Api, PODS, pod};

const CLASSES: &str = "/apis/node.k8s.io/v1/runtimeclasses";

fn named(name: &str, more: Value) -> Value {
    let mut class = json!({"metadata": {"name": name}, "handler": "h"});
    class.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    class
}

#[tokio::test]
async fn rtc_04_scheduling_is_validated() {
    let api = Api::start().await;
    for (scheduling, part) in [
        (json!({"nodeSelector": {"a/b/c": "x"}}), "scheduling.nodeSelector: Invalid value: \"a/b/c\""),
        (json!({"nodeSelector": {"a": "not good"}}), "scheduling.nodeSelector: Invalid value: \"not good\""),
        (
            json!({"tolerations": [{"key": "a", "operator": "Exists", "value": "x"}]}),
            "scheduling.tolerations[0]",
        ),
        (json!({"tolerations": [{"operator": "Equal", "value": "x"}]}), "scheduling.tolerations[0].operator"),
        (
            json!({"tolerations": [{"key": "a", "operator": "Exists"}, {"key": "a", "operator": "Exists"}]}),
            "scheduling.tolerations[1]: Duplicate value",
        ),
    ] {
        let answer = api.post(CLASSES, named("bad", json!({"scheduling": scheduling}))).await;
        assert_eq!(answer.code, 422, "{scheduling}");
        assert!(answer.message().contains(part), "{}", answer.message());
    }
    // Same key, other effect: another toleration. No scheduling at all: every node.
    let two = json!([{"key": "a", "operator": "Exists", "effect": "NoSchedule"}, {"key": "a", "operator": "Exists", "effect": "NoExecute"}]);
    api.post(CLASSES, named("two", json!({"scheduling": {"tolerations": two}}))).await.expect(201);
    let made = api.post(CLASSES, named("anywhere", json!({}))).await.expect(201);
    assert!(made.get("scheduling").is_none());
}

#[tokio::test]
async fn rtc_05_overhead_is_validated() {
    let api = Api::start().await;
    for (fixed, part) in [
        (
            json!({"cpu": "-1"}),
            "overhead.podFixed[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
        ),
        (json!({"not a name": "1"}), "overhead.podFixed"),
    ] {
        let answer = api.post(CLASSES, named("bad", json!({"overhead": {"podFixed": fixed}}))).await;
        assert_eq!(answer.code, 422, "{}", answer.message());
        assert!(answer.message().contains(part), "{}", answer.message());
    }
    let unreadable = named("bad", json!({"overhead": {"podFixed": {"cpu": "much"}}}));
    assert_eq!(api.post(CLASSES, unreadable).await.code, 400);
    api.post(CLASSES, named("good", json!({"overhead": {"podFixed": {"cpu": "250m", "memory": "120Mi"}}})))
        .await
        .expect(201);
}

#[tokio::test]
async fn rtc_03_handlers_that_are_no_labels_are_refused() {
    let api = Api::start().await;
    for handler in ["Upper", "under_score", "a.b", "-a", &"x".repeat(64)] {
        let answer = api.post(CLASSES, json!({"metadata": {"name": "bad"}, "handler": handler})).await;
        assert_eq!(answer.code, 422, "{handler}");
        assert!(answer.message().contains("handler: Invalid value"), "{}", answer.message());
    }
    api.post(CLASSES, json!({"metadata": {"name": "good"}, "handler": "x".repeat(63)})).await.expect(201);
}

#[tokio::test]
async fn rtc_07_the_class_matters_when_a_pod_is_created_only() {
    let api = Api::start().await;
    let overhead = json!({"overhead": {"podFixed": {"cpu": "100m"}}});
    api.post(CLASSES, named("passing", overhead)).await.expect(201);
    let mut p = pod("p");
    p["spec"]["runtimeClassName"] = json!("passing");
    api.post(PODS, p.clone()).await.expect(201);
    api.delete(&format!("{CLASSES}/passing")).await.expect(200);
    let labelled =
        api.merge(&format!("{PODS}/p"), json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    assert_eq!(labelled["spec"]["overhead"], json!({"cpu": "100m"}), "it keeps what it was given");
    let status = json!({"status": {"message": "still here"}});
    api.merge(&format!("{PODS}/p/status"), status).await.expect(200);
    p["metadata"]["name"] = json!("q");
    let answer = api.post(PODS, p).await;
    assert_eq!(answer.message(), "pods \"q\" is forbidden: pod rejected: RuntimeClass \"passing\" not found");
}

#[tokio::test]
async fn rtc_14_the_name_is_a_subdomain_and_stays() {
    let api = Api::start().await;
    api.post(CLASSES, named("one.example", json!({}))).await.expect(201);
    api.post(CLASSES, named("two", json!({}))).await.expect(201);
    let mut p = pod("p");
    p["spec"]["runtimeClassName"] = json!("one.example");
    api.post(PODS, p).await.expect(201);
    let answer = api.merge(&format!("{PODS}/p"), json!({"spec": {"runtimeClassName": "two"}})).await;
    assert_eq!(answer.code, 422);
    assert!(
        answer.message().contains("pod updates may not change fields other than"),
        "{}",
        answer.message()
    );
    // Admission looks for the class first, as upstream's does.
    let mut bad = pod("bad");
    bad["spec"]["runtimeClassName"] = json!("No_Name");
    assert!([403, 422].contains(&api.post(PODS, bad).await.code));
}

#[tokio::test]
async fn rtc_26_status_and_describe_see_overhead_as_admission_wrote_it() {
    let api = Api::start().await;
    let overhead = json!({"overhead": {"podFixed": {"memory": "64Mi"}}});
    api.post(CLASSES, named("heavy", overhead)).await.expect(201);
    let mut p = pod("p");
    p["spec"]["runtimeClassName"] = json!("heavy");
    let made = api.post(PODS, p).await.expect(201);
    assert_eq!(made["spec"]["overhead"]["memory"], "64Mi");
    // RTC-25: the class of service does not see it.
    assert_eq!(made["status"]["qosClass"], "BestEffort");
}
