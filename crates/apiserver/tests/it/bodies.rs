//! Bodies that are not what they should be.

use http::Method;
use serde_json::json;

use crate::harness::{Api, PODS, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

#[tokio::test]
async fn unknown_fields_are_reported_as_asked() {
    let api = Api::start().await;
    let body = json!({"metadata": {"name": "a"}, "unknown": 1});
    let warned = api.post(MAPS, body.clone()).await;
    assert_eq!(warned.code, 201);
    assert_eq!(warned.warnings(), [r#"299 - "unknown field \"unknown\"""#]);
    let strict = api.post(&format!("{MAPS}?fieldValidation=Strict"), body.clone()).await;
    assert_eq!(strict.code, 400);
    assert_eq!(
        strict.message(),
        r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "unknown""#
    );
    let ignored = api.put(&format!("{MAPS}/a?fieldValidation=Ignore"), body.clone()).await;
    assert_eq!((ignored.code, ignored.warnings().len()), (200, 0));
    assert_eq!(api.post(&format!("{MAPS}?fieldValidation=X"), body).await.code, 422);
    let twice = br#"{"metadata": {"name": "b"}, "data": {"k": "1", "k": "2"}}"#;
    let answer =
        api.call(Method::POST, &format!("{MAPS}?fieldValidation=Strict"), &JSON, twice.to_vec()).await;
    assert!(answer.message().contains(r#"duplicate field "data.k""#), "{}", answer.message());
}

#[tokio::test]
async fn wrong_bodies_are_refused() {
    let api = Api::start().await;
    for (body, code) in [
        ("", 400),
        ("{", 400),
        ("[]", 400),
        ("null", 400),
        (r#"{"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "a"}}"#, 400),
        (r#"{"kind": "ConfigMap", "apiVersion": "v2", "metadata": {"name": "a"}}"#, 400),
        (r#"{"metadata": {"name": "a", "namespace": "other"}}"#, 400),
        (r#"{"metadata": {"name": 3}}"#, 400),
        (r#"{"metadata": {"name": "UPPER"}}"#, 422),
        (r#"{"metadata": {}}"#, 422),
    ] {
        let answer = api.call(Method::POST, MAPS, &JSON, body.into()).await;
        assert_eq!(answer.code, code, "{body}: {}", answer.message());
        assert_eq!(answer.json()["kind"], "Status", "{body}");
    }
    let large = api.call(Method::POST, MAPS, &JSON, vec![b' '; (3 << 20) + 1]).await;
    assert_eq!(
        (large.code, large.message().as_str()),
        (413, "Request entity is too large: limit is 3145728")
    );
    let name = api.put(&format!("{MAPS}/b"), json!({"metadata": {"name": "a"}})).await;
    assert_eq!(name.message(), "the name of the object (a) does not match the name on the URL (b)");
    assert_eq!(api.call(Method::POST, &format!("{MAPS}/a"), &JSON, b"{}".to_vec()).await.code, 405);
}

#[tokio::test]
async fn what_is_no_such_object_is_refused_in_upstreams_words() {
    let api = Api::start().await;
    for (path, body, text) in [
        (
            PODS,
            r#"{"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}}"#,
            r#"ConfigMap in version "v1" cannot be handled as a Pod: converting (v1.ConfigMap) to (core.Pod): unknown conversion"#,
        ),
        (
            PODS,
            r#"{"kind": "pod", "apiVersion": "v1", "metadata": {"name": "a"}}"#,
            r#"pod in version "v1" cannot be handled as a Pod: no kind "pod" is registered for version "v1" in scheme "pkg/api/legacyscheme/scheme.go:30""#,
        ),
        (
            PODS,
            r#"{"apiVersion": "apps/v1", "metadata": {"name": "a"}}"#,
            r#"Pod in version "v1" cannot be handled as a Pod: no kind "Pod" is registered for version "apps/v1" in scheme "pkg/api/legacyscheme/scheme.go:30""#,
        ),
        (
            "/apis/apps/v1/namespaces/default/deployments",
            r#"{"kind": "PodList", "apiVersion": "v1", "items": []}"#,
            r#"PodList in version "v1" cannot be handled as a Deployment: converting (v1.PodList) to (apps.Deployment): unknown conversion"#,
        ),
        (
            "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers",
            r#"{"kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v1", "metadata": {"name": "a"}}"#,
            "the API version in the data (autoscaling/v1) does not match the expected API version (autoscaling/v2)",
        ),
    ] {
        let answer = api.call(Method::POST, path, &JSON, body.into()).await;
        assert_eq!((answer.code, answer.message().as_str()), (400, text), "{body}");
    }
    let empty = api.call(Method::POST, PODS, &JSON, Vec::new()).await.message();
    let begin = "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: ";
    assert!(empty.starts_with(begin) && empty.ends_with(" (<empty>)"), "{empty}");
    let broken =
        api.call(Method::POST, PODS, &JSON, b"{\"kind\": \"Pod\", \"apiVersion\": \"v1\", x".to_vec()).await;
    assert!(broken.message().ends_with(r#" ({"kind": "Pod", "apiVersion":  ...)"#), "{}", broken.message());
    let binary = api.call(Method::POST, PODS, &JSON, vec![0, 159, 255]).await.message();
    assert!(binary.ends_with(" (009fff)"), "{binary}");
}

#[tokio::test]
async fn a_wrong_type_is_named_and_an_invalid_pod_lists_its_causes() {
    let api = Api::start().await;
    let mut wrong = pod("p");
    wrong["spec"]["containers"] = json!("c");
    let answer = api.post(PODS, wrong).await;
    assert_eq!(answer.code, 400);
    assert!(
        answer.message().contains("json: cannot unmarshal string into Go struct field"),
        "{}",
        answer.message()
    );
    let mut empty = pod("p");
    empty["spec"]["containers"] = json!([]);
    let answer = api.post(PODS, empty).await;
    assert_eq!(answer.message(), r#"Pod "p" is invalid: spec.containers: Required value"#);
    assert_eq!(answer.json()["details"]["causes"][0]["field"], "spec.containers");
}

#[tokio::test]
async fn img_21_img_22_policies_and_images_are_checked() {
    let api = Api::start().await;
    let mut policy = pod("p");
    policy["spec"]["containers"][0]["imagePullPolicy"] = json!("X");
    let answer = api.post(PODS, policy).await;
    assert_eq!(answer.code, 422);
    assert!(
        answer.message().contains(r#"spec.containers[0].imagePullPolicy: Unsupported value: "X": supported values: "Always", "IfNotPresent", "Never""#),
        "{}",
        answer.message()
    );
    let mut image = pod("p");
    image["spec"]["containers"][0]["image"] = json!("");
    assert!(api.post(PODS, image).await.message().contains("spec.containers[0].image: Required value"));
    let mut odd = pod("odd");
    odd["spec"]["containers"][0]["image"] = json!("NOT valid::");
    api.post(PODS, odd).await.expect(201);
}

#[tokio::test]
async fn pod_57_generation_counts_what_the_spec_went_through() {
    let api = Api::start().await;
    let mut first = pod("p");
    first["metadata"]["generation"] = json!(7);
    let made = api.post(PODS, first).await.expect(201);
    assert_eq!(made["metadata"]["generation"], 1);
    let path = format!("{PODS}/p");
    let labelled = api.merge(&path, json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    assert_eq!(labelled["metadata"]["generation"], 1);
    let changed = api.merge(&path, json!({"spec": {"activeDeadlineSeconds": 60}})).await.expect(200);
    assert_eq!(changed["metadata"]["generation"], 2);
    let status =
        api.merge(&format!("{path}/status"), json!({"status": {"phase": "Running"}})).await.expect(200);
    assert_eq!(status["metadata"]["generation"], 2);
}
