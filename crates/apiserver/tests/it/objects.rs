//! Creating, reading and replacing objects.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::harness::{Api, PODS, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn an_object_lives_from_create_to_delete() {
    let api = Api::start().await;
    let made = api.post(MAPS, json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await.expect(201);
    assert_eq!((made["kind"].as_str(), made["apiVersion"].as_str()), (Some("ConfigMap"), Some("v1")));
    assert_eq!(made["metadata"]["namespace"], "default");
    assert_eq!(made["metadata"]["uid"].as_str().unwrap().len(), 36);
    assert!(made["metadata"]["creationTimestamp"].as_str().unwrap().ends_with('Z'));
    let got = api.get(&format!("{MAPS}/a")).await.expect(200);
    assert_eq!(got, made);

    let again = api.post(MAPS, json!({"metadata": {"name": "a"}})).await;
    assert_eq!((again.code, again.message().as_str()), (409, r#"configmaps "a" already exists"#));
    let gone = api.delete(&format!("{MAPS}/a")).await.expect(200);
    assert_eq!((gone["status"].as_str(), gone["details"]["name"].as_str()), (Some("Success"), Some("a")));
    let missing = api.get(&format!("{MAPS}/a")).await;
    assert_eq!((missing.code, missing.message().as_str()), (404, r#"configmaps "a" not found"#));
    assert_eq!(api.get("/api/v1/namespaces/default/nonsense").await.code, 404);
}

#[tokio::test]
async fn a_stale_write_is_refused_and_a_fresh_one_is_not() {
    let api = Api::start().await;
    let made = api.post(MAPS, json!({"metadata": {"name": "a"}})).await.expect(201);
    let mut next = made.clone();
    next["data"] = json!({"k": "1"});
    let updated = api.put(&format!("{MAPS}/a"), next.clone()).await.expect(200);
    assert_ne!(updated["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let stale = api.put(&format!("{MAPS}/a"), next).await;
    assert_eq!(stale.code, 409);
    assert_eq!(
        stale.message(),
        r#"Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again"#
    );
    // The same content again is no write.
    let same = api.put(&format!("{MAPS}/a"), updated.clone()).await.expect(200);
    assert_eq!(same["metadata"]["resourceVersion"], updated["metadata"]["resourceVersion"]);
    // Without a version the newest one is replaced.
    api.put(&format!("{MAPS}/a"), json!({"metadata": {"name": "a"}})).await.expect(200);
    let other = json!({"metadata": {"name": "a", "uid": "00000000-0000-4000-8000-000000000000"}});
    assert_eq!(api.put(&format!("{MAPS}/a"), other).await.code, 409);
    assert_eq!(api.put(&format!("{MAPS}/none"), json!({"metadata": {"name": "none"}})).await.code, 404);
}

#[tokio::test]
async fn rtc_02_put_creates_a_runtime_class_and_demands_a_version_to_replace_it() {
    let api = Api::start().await;
    let path = "/apis/node.k8s.io/v1/runtimeclasses/r";
    let class = json!({"metadata": {"name": "r"}, "handler": "h"});
    let made = api.put(path, class.clone()).await.expect(201);
    assert_eq!(made["handler"], "h");
    let answer = api.put(path, class).await;
    assert_eq!(answer.code, 422);
    assert_eq!(
        answer.message(),
        r#"RuntimeClass.node.k8s.io "r" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update"#
    );
    api.put(path, made).await.expect(200);
    let duplicate = api
        .post("/apis/node.k8s.io/v1/runtimeclasses", json!({"metadata": {"name": "r"}, "handler": "h"}))
        .await;
    assert_eq!(duplicate.message(), r#"runtimeclasses.node.k8s.io "r" already exists"#);
}

#[tokio::test]
async fn names_are_generated() {
    let api = Api::start().await;
    let mut names = HashSet::new();
    for _ in 0..20 {
        let made = api.post(MAPS, json!({"metadata": {"generateName": "x-"}})).await.expect(201);
        let name = made["metadata"]["name"].as_str().unwrap().to_owned();
        assert!(name.starts_with("x-") && name.len() == 7, "{name}");
        assert!(names.insert(name));
    }
}

#[tokio::test]
async fn a_dry_run_does_everything_but_the_write() {
    let api = Api::start().await;
    let made = api.post(&format!("{MAPS}?dryRun=All"), json!({"metadata": {"name": "a"}})).await.expect(201);
    assert!(made["metadata"]["uid"].is_string());
    assert_eq!(api.get(&format!("{MAPS}/a")).await.code, 404);
    api.post(MAPS, json!({"metadata": {"name": "a"}})).await.expect(201);
    assert_eq!(api.post(&format!("{MAPS}?dryRun=All"), json!({"metadata": {"name": "a"}})).await.code, 409);
    api.delete(&format!("{MAPS}/a?dryRun=All")).await.expect(200);
    let patched = api.merge(&format!("{MAPS}/a?dryRun=All"), json!({"data": {"k": "v"}})).await.expect(200);
    assert_eq!(patched["data"]["k"], "v");
    assert!(api.get(&format!("{MAPS}/a")).await.expect(200).get("data").is_none());
    assert_eq!(api.post(&format!("{MAPS}?dryRun=Some"), json!({"metadata": {"name": "b"}})).await.code, 422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_patches_are_all_kept() {
    let api = std::sync::Arc::new(Api::start().await);
    api.config_map("a", json!({})).await;
    let writers = (0..16).map(|writer| {
        let api = api.clone();
        tokio::spawn(async move {
            for round in 0..5 {
                let key = format!("k{writer}-{round}");
                api.merge(&format!("{MAPS}/a"), json!({"data": {key: "v"}})).await.expect(200);
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let map = api.get(&format!("{MAPS}/a")).await.expect(200);
    assert_eq!(map["data"].as_object().unwrap().len(), 80);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_puts_of_one_version_have_one_winner() {
    let api = std::sync::Arc::new(Api::start().await);
    api.config_map("a", json!({})).await;
    let seen = api.get(&format!("{MAPS}/a")).await.expect(200);
    let writers = (0..12).map(|writer| {
        let (api, mut object) = (api.clone(), seen.clone());
        object["data"] = json!({"writer": writer.to_string()});
        tokio::spawn(async move { api.put(&format!("{MAPS}/a"), object).await.code })
    });
    let mut codes = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        codes.push(writer.await.unwrap());
    }
    assert_eq!(codes.iter().filter(|code| **code == 200).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == 409).count(), 11, "{codes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn services_get_addresses_of_their_own() {
    let api = std::sync::Arc::new(Api::start().await);
    let path = "/api/v1/namespaces/default/services";
    let kubernetes = api.get(&format!("{path}/kubernetes")).await.expect(200);
    assert_eq!(kubernetes["spec"]["clusterIP"], "10.43.0.1");
    let makers = (0..20).map(|n| {
        let api = api.clone();
        let service = json!({"metadata": {"name": format!("s{n}")}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
        tokio::spawn(async move { api.post(path, service).await.expect(201) })
    });
    let (mut addresses, mut ports) = (HashSet::new(), HashSet::new());
    for maker in makers.collect::<Vec<_>>() {
        let service = maker.await.unwrap();
        assert!(addresses.insert(service["spec"]["clusterIP"].as_str().unwrap().to_owned()));
        assert!(ports.insert(service["spec"]["ports"][0]["nodePort"].as_u64().unwrap()));
    }
    let taken =
        json!({"metadata": {"name": "t"}, "spec": {"clusterIP": "10.43.0.1", "ports": [{"port": 80}]}});
    let answer = api.post(path, taken).await;
    assert_eq!(answer.code, 422);
    assert!(answer.message().contains("provided IP is already allocated"), "{}", answer.message());
    // A manifest without the address keeps it.
    let kept = api
        .put(
            &format!("{path}/s0"),
            json!({"metadata": {"name": "s0"}, "spec": {"type": "ClusterIP", "ports": [{"port": 81}]}}),
        )
        .await
        .expect(200);
    assert!(addresses.contains(kept["spec"]["clusterIP"].as_str().unwrap()));
    assert!(kept["spec"]["ports"][0].get("nodePort").is_none());
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let api = Api::start().await;
    let version = api.config_map("a", json!({"l": "1"})).await;
    let uid = api.get("/api/v1/namespaces/kube-system").await.expect(200)["metadata"]["uid"].clone();
    let api = api.restart().await;
    let map = api.get(&format!("{MAPS}/a")).await.expect(200);
    assert_eq!(map["metadata"]["resourceVersion"].as_str().unwrap(), version);
    assert_eq!(api.get("/api/v1/namespaces/kube-system").await.expect(200)["metadata"]["uid"], uid);
    let list = api.get(&format!("{MAPS}?labelSelector=l%3D1")).await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_every_cluster_has() {
    let api = Api::start().await;
    for path in [
        "/api/v1/namespaces/default",
        "/api/v1/namespaces/kube-public",
        "/api/v1/namespaces/kube-node-lease",
        "/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical",
        "/apis/scheduling.k8s.io/v1/priorityclasses/system-cluster-critical",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/cluster-admin",
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes",
    ] {
        api.get(path).await.expect(200);
    }
    let endpoints = api.get("/api/v1/namespaces/default/endpoints/kubernetes").await.expect(200);
    assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], "192.0.2.1");
    assert_eq!(endpoints["subsets"][0]["ports"][0]["port"], 6443);
}

#[tokio::test]
async fn events_are_the_same_objects_in_both_groups() {
    let api = Api::start().await;
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "R", "message": "m", "type": "Normal", "source": {"component": "x"}});
    api.post("/api/v1/namespaces/default/events", event).await.expect(201);
    let new = api.get("/apis/events.k8s.io/v1/namespaces/default/events/e").await.expect(200);
    assert_eq!((new["apiVersion"].as_str(), new["note"].as_str()), (Some("events.k8s.io/v1"), Some("m")));
    assert_eq!(new["regarding"]["name"], "p");
    let list = api.get("/apis/events.k8s.io/v1/events").await.expect(200);
    assert_eq!(list["kind"], "EventList");
    assert_eq!(list["items"][0]["note"], "m");
    let selected = api.get("/api/v1/events?fieldSelector=involvedObject.name%3Dp").await.expect(200);
    assert_eq!(selected["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn who_creates_what_nothing_acts_on_is_warned() {
    let api = Api::start().await;
    let deployment = json!({"metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let created = api.post(deployments, deployment).await;
    assert_eq!(
        created.warnings(),
        [r#"299 - "sampan stores deployments.apps, but nothing acts on them yet""#]
    );
    let scaled = api.merge(&format!("{deployments}/d"), json!({"spec": {"replicas": 2}})).await;
    assert_eq!((scaled.code, scaled.warnings().len()), (200, 0));
    assert!(api.post(PODS, pod("p")).await.warnings().is_empty());
}

#[tokio::test]
async fn a_services_type_alone_can_be_changed() {
    let api = Api::start().await;
    let path = "/api/v1/namespaces/default/services";
    let web = json!({"metadata": {"name": "web"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}});
    let made = api.post(path, web).await.expect(201);
    let path = format!("{path}/web");
    let to = async |spec: Value| api.merge(&path, json!({"spec": spec})).await.expect(200)["spec"].clone();
    let node_port = to(json!({"type": "NodePort"})).await;
    assert_eq!(node_port["ports"], made["spec"]["ports"]);
    assert!(node_port.get("allocateLoadBalancerNodePorts").is_none(), "{node_port}");
    let plain = to(json!({"type": "ClusterIP"})).await;
    assert_eq!(plain["clusterIP"], made["spec"]["clusterIP"]);
    assert!(plain["ports"][0].get("nodePort").is_none(), "{plain}");
    assert!(plain.get("externalTrafficPolicy").is_none(), "{plain}");
    let name = to(json!({"type": "ExternalName", "externalName": "web.example"})).await;
    assert!(name.get("clusterIP").is_none() && name.get("ipFamilies").is_none(), "{name}");
    let again = to(json!({"type": "NodePort", "externalName": null})).await;
    assert!(again["clusterIP"].is_string() && again["ports"][0]["nodePort"].is_u64(), "{again}");
}
