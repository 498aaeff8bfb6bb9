//! Lists: pieces, revisions, selectors.

use serde_json::{Value, json};

use crate::harness::Api;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn pieces_show_one_revision() {
    let api = Api::start().await;
    for n in 0..7 {
        api.config_map(&format!("m{n}"), json!({"even": (n % 2 == 0).to_string()})).await;
    }
    let first = api.get(&format!("{MAPS}?limit=3")).await.expect(200);
    assert_eq!(names(&first), ["m0", "m1", "m2"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    // What changes in between is not seen.
    api.config_map("m3a", json!({})).await;
    api.delete(&format!("{MAPS}/m4")).await.expect(200);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = api.get(&format!("{MAPS}?limit=3&continue={token}")).await.expect(200);
    assert_eq!(names(&second), ["m3", "m4", "m5"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = api.get(&format!("{MAPS}?limit=3&continue={token}")).await.expect(200);
    assert_eq!(names(&third), ["m6"]);
    assert!(third["metadata"].get("continue").is_none());

    let selected = api.get(&format!("{MAPS}?limit=2&labelSelector=even%3Dtrue")).await.expect(200);
    assert_eq!(names(&selected), ["m0", "m2"]);
    assert!(selected["metadata"].get("remainingItemCount").is_none());
    let token = selected["metadata"]["continue"].as_str().unwrap();
    let rest =
        api.get(&format!("{MAPS}?limit=5&labelSelector=even%3Dtrue&continue={token}")).await.expect(200);
    assert_eq!(names(&rest), ["m6"]);
    assert_eq!(api.get(&format!("{MAPS}?continue=garbage")).await.code, 400);
}

#[tokio::test]
async fn a_token_of_a_compacted_revision_can_be_exchanged() {
    let api = Api::start().await;
    for n in 0..4 {
        api.config_map(&format!("m{n}"), json!({})).await;
    }
    let first = api.get(&format!("{MAPS}?limit=2")).await.expect(200);
    let token = first["metadata"]["continue"].as_str().unwrap();
    api.config_map("n", json!({})).await;
    let store = api.server.registry.store();
    store.compact(store.revision().await.unwrap()).await.unwrap();
    let expired = api.get(&format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!(expired.code, 410);
    assert_eq!(expired.json()["reason"], "Expired");
    let token = expired.json()["metadata"]["continue"].as_str().unwrap().to_owned();
    let rest = api.get(&format!("{MAPS}?limit=9&continue={token}")).await.expect(200);
    assert_eq!(names(&rest), ["m2", "m3", "n"]);
}

#[tokio::test]
async fn revisions_bind_lists() {
    let api = Api::start().await;
    let old = api.config_map("a", json!({})).await;
    api.config_map("b", json!({})).await;
    let exact =
        api.get(&format!("{MAPS}?resourceVersion={old}&resourceVersionMatch=Exact")).await.expect(200);
    assert_eq!(names(&exact), ["a"]);
    assert_eq!(exact["metadata"]["resourceVersion"], old.as_str());
    let newer =
        api.get(&format!("{MAPS}?resourceVersion={old}&resourceVersionMatch=NotOlderThan")).await.expect(200);
    assert_eq!(names(&newer), ["a", "b"]);
    assert_eq!(names(&api.get(&format!("{MAPS}?resourceVersion=0")).await.expect(200)), ["a", "b"]);
    let future = api.get(&format!("{MAPS}?resourceVersion=999999")).await;
    assert_eq!(future.code, 504);
    assert!(future.message().contains("Too large resource version: 999999"), "{}", future.message());
    assert_eq!(api.get(&format!("{MAPS}?resourceVersionMatch=Exact")).await.code, 422);
}

#[tokio::test]
async fn selectors_select() {
    let api = Api::start().await;
    api.config_map("a", json!({"x": "1"})).await;
    api.config_map("b", json!({"x": "2"})).await;
    let by_name = api.get(&format!("{MAPS}?fieldSelector=metadata.name%3Db")).await.expect(200);
    assert_eq!(names(&by_name), ["b"]);
    let by_label = api.get("/api/v1/configmaps?labelSelector=x+in+(1,3)").await.expect(200);
    assert_eq!(names(&by_label), ["a"]);
    assert_eq!(by_label["kind"], "ConfigMapList");
    assert!(by_label["items"][0].get("kind").is_none());
    assert_eq!(api.get(&format!("{MAPS}?fieldSelector=spec.x%3Db")).await.code, 400);
    assert_eq!(api.get(&format!("{MAPS}?labelSelector=a%3Db%3Dc!")).await.code, 400);
}

#[tokio::test]
async fn a_large_list_is_compressed_for_who_takes_that() {
    let api = Api::start().await;
    for n in 0..3 {
        let object = json!({"metadata": {"name": format!("m{n}")}, "data": {"k": "x".repeat(90_000)}});
        api.post(MAPS, object).await.expect(201);
    }
    let answer = api.call(http::Method::GET, MAPS, &[("accept-encoding", "gzip")], vec![]).await;
    assert_eq!(answer.headers["content-encoding"], "gzip");
    assert!(answer.bytes.len() < 20_000);
    assert!(api.get(MAPS).await.headers.get("content-encoding").is_none());
}
