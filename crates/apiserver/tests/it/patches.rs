//! The patch types.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Api, PODS};

const MAP: &str = "/api/v1/namespaces/default/configmaps/a";

async fn patch(api: &Api, path: &str, kind: &str, body: Value) -> Answer {
    let media = format!("application/{kind}");
    api.call(Method::PATCH, path, &[("content-type", &media)], body.to_string().into()).await
}

#[tokio::test]
async fn a_map_is_patched_in_each_way() {
    let api = Api::start().await;
    api.config_map("a", json!({"l": "1"})).await;
    let merged =
        patch(&api, MAP, "merge-patch+json", json!({"data": {"k": "1"}, "metadata": {"labels": null}})).await;
    let merged = merged.expect(200);
    assert_eq!((merged["data"]["k"].as_str(), merged["metadata"].get("labels")), (Some("1"), None));
    let operations = json!([{"op": "test", "path": "/data/k", "value": "1"}, {"op": "replace", "path": "/data/k", "value": "2"}]);
    let patched = patch(&api, MAP, "json-patch+json", operations.clone()).await.expect(200);
    assert_eq!(patched["data"]["k"], "2");
    assert_eq!(patch(&api, MAP, "json-patch+json", operations).await.code, 422);
    let strategic =
        patch(&api, MAP, "strategic-merge-patch+json", json!({"data": {"j": "3"}})).await.expect(200);
    assert_eq!(strategic["data"], json!({"j": "3", "k": "2"}));
    assert_eq!(patch(&api, MAP, "json-patch+json", json!({"op": "x"})).await.code, 400);
    assert_eq!(patch(&api, &MAP.replace("/a", "/b"), "merge-patch+json", json!({})).await.code, 404);
}

#[tokio::test]
async fn containers_are_merged_by_name() {
    let api = Api::start().await;
    api.pod("p", None).await;
    let body = json!({"spec": {"containers": [{"name": "c", "image": "other:1"}]}});
    let patched = patch(&api, &format!("{PODS}/p"), "strategic-merge-patch+json", body).await.expect(200);
    assert_eq!(patched["spec"]["containers"][0]["image"], "other:1");
    assert!(patched["spec"]["containers"][0]["volumeMounts"][0]["mountPath"].is_string());
}

#[tokio::test]
async fn a_patch_that_names_a_version_insists_on_it() {
    let api = Api::start().await;
    let version = api.config_map("a", json!({})).await;
    let body = json!({"metadata": {"resourceVersion": version}, "data": {"k": "1"}});
    patch(&api, MAP, "merge-patch+json", body.clone()).await.expect(200);
    assert_eq!(patch(&api, MAP, "merge-patch+json", body).await.code, 409);
}

#[tokio::test]
async fn apply_says_that_it_is_not_there() {
    let api = Api::start().await;
    let answer = patch(&api, MAP, "apply-patch+yaml", json!({})).await;
    assert_eq!(answer.code, 415);
    assert!(answer.message().contains("server-side apply is not supported yet"));
    assert_eq!(patch(&api, MAP, "json", json!({})).await.code, 415);
}
