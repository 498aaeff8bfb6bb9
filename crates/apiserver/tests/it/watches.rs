//! Watches: what is reported, from where, and how it ends.

use std::time::{Duration, Instant};

use futures::StreamExt;
use sampan_store::{Op, Txn};
use serde_json::json;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::harness::{Api, pod};
use crate::https::{Door, tls};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_watch_begins_with_what_is_there_or_after_a_revision() {
    let api = Api::start().await;
    let first = api.config_map("a", json!({})).await;
    api.config_map("b", json!({})).await;
    let mut any = api.watch(&format!("{MAPS}?watch=true&resourceVersion=0")).await;
    let mut newest = api.watch(&format!("{MAPS}?watch=true")).await;
    let mut after = api.watch(&format!("{MAPS}?watch=1&resourceVersion={first}")).await;
    for watch in [&mut any, &mut newest] {
        assert_eq!(watch.brief().await, "ADDED a");
        assert_eq!(watch.brief().await, "ADDED b");
    }
    assert_eq!(after.brief().await, "ADDED b");
    api.merge(&format!("{MAPS}/a"), json!({"data": {"k": "v"}})).await.expect(200);
    api.delete(&format!("{MAPS}/b")).await.expect(200);
    for watch in [&mut any, &mut newest, &mut after] {
        let modified = watch.next().await;
        assert_eq!(
            (modified["type"].as_str(), modified["object"]["data"]["k"].as_str()),
            (Some("MODIFIED"), Some("v"))
        );
        let deleted = watch.next().await;
        assert_eq!(deleted["type"], "DELETED");
        let version = |event: &serde_json::Value| -> i64 {
            event["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
        };
        assert!(version(&deleted) > version(&modified));
        assert!(watch.is_quiet().await);
    }
}

#[tokio::test]
async fn selected_objects_come_and_go() {
    let api = Api::start().await;
    let mut watch = api.watch(&format!("{MAPS}?watch=true&labelSelector=x%3D1")).await;
    let mut named = api.watch(&format!("{MAPS}?watch=true&fieldSelector=metadata.name%3Dother")).await;
    api.config_map("a", json!({"x": "0"})).await;
    api.merge(&format!("{MAPS}/a"), json!({"metadata": {"labels": {"x": "1"}}})).await.expect(200);
    assert_eq!(watch.brief().await, "ADDED a");
    api.merge(&format!("{MAPS}/a"), json!({"data": {"k": "v"}})).await.expect(200);
    assert_eq!(watch.brief().await, "MODIFIED a");
    let last = api.merge(&format!("{MAPS}/a"), json!({"metadata": {"labels": {"x": "2"}}})).await.expect(200);
    let deleted = watch.next().await;
    assert_eq!(deleted["type"], "DELETED");
    // The state that was selected last, at the version at which it ceased to be.
    assert_eq!(deleted["object"]["metadata"]["labels"]["x"], "1");
    assert_eq!(deleted["object"]["metadata"]["resourceVersion"], last["metadata"]["resourceVersion"]);
    api.delete(&format!("{MAPS}/a")).await.expect(200);
    assert!(watch.is_quiet().await);
    assert!(named.is_quiet().await);
}

#[tokio::test]
async fn namespaces_are_told_apart() {
    let api = Api::start().await;
    api.post("/api/v1/namespaces", json!({"metadata": {"name": "default2"}})).await.expect(201);
    let mut watch = api.watch(&format!("{MAPS}?watch=true")).await;
    let mut all = api.watch("/api/v1/watch/configmaps").await;
    api.post("/api/v1/namespaces/default2/configmaps", json!({"metadata": {"name": "x"}})).await.expect(201);
    api.config_map("y", json!({})).await;
    assert_eq!(watch.brief().await, "ADDED y");
    assert_eq!(all.brief().await, "ADDED x");
    assert_eq!(all.brief().await, "ADDED y");
}

#[tokio::test]
async fn a_watch_list_says_where_the_initial_events_end() {
    let api = Api::start().await;
    api.config_map("a", json!({})).await;
    let query =
        "watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut watch = api.watch(&format!("{MAPS}?{query}")).await;
    assert_eq!(watch.brief().await, "ADDED a");
    let bookmark = watch.next().await;
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["kind"], "ConfigMap");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let version = bookmark["object"]["metadata"]["resourceVersion"].as_str().unwrap();
    api.config_map("b", json!({})).await;
    assert_eq!(watch.brief().await, "ADDED b");
    let mut from_there = api.watch(&format!("{MAPS}?watch=true&resourceVersion={version}")).await;
    assert_eq!(from_there.brief().await, "ADDED b");
    let refused = api.get(&format!("{MAPS}?watch=true&sendInitialEvents=true")).await;
    assert_eq!(refused.code, 422);
    assert_eq!(
        refused.message(),
        r#"ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"#
    );
}

#[tokio::test]
async fn a_revision_that_is_too_old_is_gone() {
    let api = Api::start().await;
    let api = api.restart().await;
    let mut watch = api.watch(&format!("{MAPS}?watch=true&resourceVersion=1")).await;
    let error = watch.next().await;
    assert_eq!(error["type"], "ERROR");
    assert_eq!(
        (error["object"]["code"].as_u64(), error["object"]["reason"].as_str()),
        (Some(410), Some("Expired"))
    );
    assert!(error["object"]["message"].as_str().unwrap().starts_with("too old resource version: 1 ("));
    assert!(watch.next().await.is_null());
}

#[tokio::test]
async fn a_watch_ends_when_its_time_is_up() {
    let api = Api::start().await;
    let begun = Instant::now();
    let mut watch = api.watch(&format!("{MAPS}?watch=true&timeoutSeconds=1")).await;
    assert!(watch.next().await.is_null());
    assert!((900..5000).contains(&begun.elapsed().as_millis()));
}

#[tokio::test]
async fn bookmarks_come_while_nothing_happens() {
    let api = Api::start().await;
    let mut watch = api.watch(&format!("{MAPS}?watch=true&allowWatchBookmarks=true")).await;
    api.post("/api/v1/namespaces", json!({"metadata": {"name": "elsewhere"}})).await.expect(201);
    assert!(watch.is_quiet().await);
    tokio::time::pause();
    let bookmark = watch.next_bookmark().await;
    assert_eq!(bookmark["type"], "BOOKMARK");
    let now = api.server.registry.caches().revision().to_string();
    assert_eq!(bookmark["object"]["metadata"]["resourceVersion"], now);
}

#[tokio::test]
async fn tables_can_be_watched() {
    let api = Api::start().await;
    api.config_map("a", json!({})).await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let request = http::Request::get(format!("{MAPS}?watch=true")).header("accept", accept);
    let mut watch = api.watch_request(request.body(kube::client::Body::empty()).unwrap()).await;
    let first = watch.next().await;
    assert_eq!(first["object"]["kind"], "Table");
    assert_eq!(first["object"]["columnDefinitions"][0]["name"], "Name");
    api.config_map("b", json!({})).await;
    let second = watch.next().await;
    assert_eq!(second["object"]["rows"][0]["cells"][0], "b");
    assert!(second["object"]["columnDefinitions"].is_null());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_watchers_hear_of_a_pod_soon() {
    let api = Api::start().await;
    let mut watches = Vec::new();
    for _ in 0..1000 {
        watches.push(api.watch("/api/v1/pods?watch=true").await);
    }
    let mut latencies = Vec::new();
    for n in 0..20 {
        let begun = Instant::now();
        api.post("/api/v1/namespaces/default/pods", pod(&format!("p{n}"))).await.expect(201);
        assert_eq!(watches[999].brief().await, format!("ADDED p{n}"));
        latencies.push(begun.elapsed());
    }
    latencies.sort();
    // A debug build on a busy machine: the bound is generous, the number is printed.
    println!("create to watcher, 1000 watchers: median {:?}", latencies[10]);
    assert!(latencies[10] < Duration::from_millis(500), "{:?}", latencies[10]);
    assert_eq!(watches[0].brief().await, "ADDED p0");
}

#[tokio::test]
async fn a_browser_watches_over_a_websocket() {
    let api = Api::start().await;
    let door = Door::open(&api).await;
    api.config_map("a", json!({})).await;
    let pki = api.server.config.pki.clone();
    let stream = tls(door.address, pki.ca_pem(), Some(pki.admin())).await;
    let mut request =
        format!("wss://localhost{MAPS}?watch=true&resourceVersion=0").into_client_request().unwrap();
    // Browsers want one of the protocols that they offer; the one with a token in it is no protocol.
    let offered = "base64url.bearer.authorization.k8s.io.eA, base64.binary.k8s.io";
    request.headers_mut().insert("sec-websocket-protocol", offered.parse().unwrap());
    let (mut socket, answer) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], "base64.binary.k8s.io");
    let mut event = async || -> serde_json::Value {
        let message = tokio::time::timeout(Duration::from_secs(10), socket.next()).await.unwrap();
        serde_json::from_str(message.unwrap().unwrap().to_text().unwrap()).unwrap()
    };
    assert_eq!(event().await["object"]["metadata"]["name"], "a");
    for name in ["b", "c"] {
        api.config_map(name, json!({})).await;
    }
    for name in ["b", "c"] {
        let event = event().await;
        assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("ADDED"), &json!(name)));
    }
    socket.close(None).await.unwrap();
    door.close().await;
}

#[tokio::test]
async fn all_events_of_one_revision_are_reported() {
    let api = Api::start().await;
    for name in ["a", "b", "c"] {
        api.config_map(name, json!({})).await;
    }
    let mut watch = api.watch(&format!("{MAPS}?watch=true")).await;
    for name in ["a", "b", "c"] {
        assert_eq!(watch.brief().await, format!("ADDED {name}"));
    }
    // As the end of a lease does with the Events that were bound to it.
    let gone = ["a", "b"].map(|name| Op::Delete(format!("/registry/configmaps/default/{name}").into()));
    let txn = Txn { then: gone.to_vec(), ..Txn::default() };
    let revision = api.server.registry.store().txn(txn).await.unwrap().revision.0;
    for name in ["a", "b"] {
        assert_eq!(watch.brief().await, format!("DELETED {name}"));
    }
    let mut later = api.watch(&format!("{MAPS}?watch=true&resourceVersion={revision}")).await;
    api.delete(&format!("{MAPS}/c")).await.expect(200);
    for watch in [&mut watch, &mut later] {
        assert_eq!(watch.brief().await, "DELETED c");
    }
}

#[tokio::test]
async fn no_time_is_no_limit() {
    let api = Api::start().await;
    let mut watch = api.watch(&format!("{MAPS}?watch=true&timeoutSeconds=0")).await;
    assert!(watch.is_quiet().await);
    api.config_map("a", json!({})).await;
    assert_eq!(watch.brief().await, "ADDED a");
}
