//! Forms of answers.

use http::Method;
use serde_json::json;

use crate::harness::{Answer, Api};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn get(api: &Api, path: &str, accept: &str) -> Answer {
    api.call(Method::GET, path, &[("accept", accept)], vec![]).await
}

#[tokio::test]
async fn answers_come_in_the_form_that_is_accepted() {
    let api = Api::start().await;
    api.config_map("a", json!({"x": "1"})).await;
    let table =
        get(&api, MAPS, "application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await.expect(200);
    assert_eq!(
        (table["kind"].as_str(), table["apiVersion"].as_str()),
        (Some("Table"), Some("meta.k8s.io/v1"))
    );
    assert_eq!(table["rows"][0]["cells"][0], "a");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert!(table["metadata"]["resourceVersion"].is_string());
    let partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let partial = get(&api, MAPS, partial).await.expect(200);
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
    assert_eq!(partial["items"][0]["metadata"]["labels"]["x"], "1");
    let yaml = get(&api, &format!("{MAPS}/a"), "application/yaml").await;
    assert_eq!(yaml.headers["content-type"], "application/yaml");
    assert!(String::from_utf8_lossy(&yaml.bytes).contains("kind: ConfigMap"));
    let pretty = api.get(&format!("{MAPS}/a?pretty=true")).await;
    assert!(String::from_utf8_lossy(&pretty.bytes).starts_with("{\n  \""));
    let protobuf = "application/vnd.kubernetes.protobuf";
    assert_eq!(get(&api, MAPS, protobuf).await.code, 406);
    assert_eq!(get(&api, MAPS, &format!("{protobuf},application/json")).await.code, 200);
    let sent = api.call(Method::POST, MAPS, &[("content-type", "application/cbor")], vec![]).await;
    assert_eq!(sent.code, 415);
    assert!(sent.headers.contains_key("audit-id"));
}

#[tokio::test]
async fn yaml_is_read() {
    let api = Api::start().await;
    let body = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: from-yaml\ndata:\n  k: \"0644\"\n";
    let made =
        api.call(Method::POST, MAPS, &[("content-type", "application/yaml")], body.into()).await.expect(201);
    assert_eq!(made["data"]["k"], "0644");
}
