//! The scheduler against the real API server, as the user that it is in a cluster: what it writes is accepted there.

use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use sampan_apiserver::admission::AdmissionConfig;
use sampan_apiserver::pki::PkiConfig;
use sampan_apiserver::{ApiServer, Config, Pki, UserInfo};
use sampan_store::embedded::Embedded;
use serde_json::json;
use tokio_util::sync::CancellationToken;

async fn start(directory: &std::path::Path, shutdown: &CancellationToken) -> kube::Client {
    let pki = PkiConfig {
        node_name: "n1".into(),
        hostnames: Vec::new(),
        ips: Vec::new(),
        service_ip: None,
        cluster_domain: "cluster.local".into(),
    };
    let server = ApiServer::start(Config {
        store: Embedded::open(&directory.join("store")).unwrap(),
        pki: Pki::ensure(&directory.join("pki"), &pki).unwrap(),
        service_cidr: "10.43.0.0/16".parse().unwrap(),
        node_ports: (30000, 32767),
        cluster_domain: "cluster.local".into(),
        advertise: ("127.0.0.1".parse().unwrap(), 6443),
        token_auth_file: None,
        admission: AdmissionConfig { disable: vec!["ServiceAccount".into()], ..AdmissionConfig::default() },
    })
    .await
    .unwrap();
    let (scheduler, shutdown) =
        (server.client(UserInfo::new("system:kube-scheduler", [""; 0])), shutdown.clone());
    tokio::spawn(async move { sampan_scheduler::run(scheduler, shutdown).await.unwrap() });
    server.client(UserInfo::admin())
}

async fn events(client: &kube::Client, reason: &str) -> Vec<Event> {
    let events = Api::<Event>::namespaced(client.clone(), "default");
    let start = Instant::now();
    loop {
        let found =
            events.list(&ListParams::default().fields(&format!("reason={reason}"))).await.unwrap().items;
        if !found.is_empty() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "no event {reason}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn pod(name: &str, cpu: &str) -> Pod {
    let container =
        json!({"name": "c", "image": "sampan.local/toolbox", "resources": {"requests": {"cpu": cpu}}});
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"containers": [container]}})).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pod_19_rtc_22_real_api_takes_bindings_conditions_and_events() {
    let directory = tempfile::tempdir().unwrap();
    let shutdown = CancellationToken::new();
    let client = start(directory.path(), &shutdown).await;
    let nodes = Api::<Node>::all(client.clone());
    let node = serde_json::from_value(json!({"metadata": {"name": "n1"}})).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let allocatable = json!({"cpu": "2", "memory": "4Gi", "pods": "110"});
    let status = Patch::Merge(json!({"status": {"allocatable": allocatable, "capacity": allocatable}}));
    nodes.patch_status("n1", &PatchParams::default(), &status).await.unwrap();

    let pods = Api::<Pod>::namespaced(client.clone(), "default");
    let mut changes = pods.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    let mut times = Vec::new();
    for number in 0..10 {
        let start = Instant::now();
        pods.create(&PostParams::default(), &pod(&format!("p{number}"), "100m")).await.unwrap();
        let bound = loop {
            let change = tokio::time::timeout(Duration::from_secs(10), changes.next()).await;
            if let WatchEvent::Modified(pod) = change.unwrap().unwrap().unwrap()
                && pod.spec.as_ref().unwrap().node_name.is_some()
            {
                break pod;
            }
        };
        times.push(start.elapsed());
        let conditions = bound.status.unwrap().conditions.unwrap();
        let scheduled = conditions.iter().find(|condition| condition.type_ == "PodScheduled").unwrap();
        assert_eq!(scheduled.status, "True");
    }
    times.sort();
    println!("created to bound as a watch sees it: p50 {:?}, longest {:?}", times[5], times[9]);
    let event = events(&client, "Scheduled").await.remove(0);
    assert!(event.message.unwrap().starts_with("Successfully assigned default/p"));
    assert_eq!(event.reporting_component.as_deref(), Some("default-scheduler"));

    pods.create(&PostParams::default(), &pod("big", "3")).await.unwrap();
    let event = events(&client, "FailedScheduling").await.remove(0);
    let message = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is \
                   not helpful for scheduling.";
    assert_eq!(event.message.as_deref(), Some(message));
    let start = Instant::now();
    loop {
        let big = pods.get("big").await.unwrap();
        let conditions = big.status.unwrap().conditions.unwrap_or_default();
        let unschedulable = |condition: &&k8s_openapi::api::core::v1::PodCondition| {
            condition.reason.as_deref() == Some("Unschedulable")
                && condition.message.as_deref() == Some(message)
        };
        if let Some(found) = conditions.iter().find(unschedulable) {
            assert_eq!((found.type_.as_str(), found.status.as_str()), ("PodScheduled", "False"));
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{conditions:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // A node that grows: the same failure counts up, then the pod is bound.
    let patch = |cpu: &str| Patch::Merge(json!({"status": {"allocatable": {"cpu": cpu}}}));
    nodes.patch_status("n1", &PatchParams::default(), &patch("2500m")).await.unwrap();
    let start = Instant::now();
    while events(&client, "FailedScheduling").await[0].series.as_ref().and_then(|series| series.count)
        != Some(2)
    {
        assert!(start.elapsed() < Duration::from_secs(10), "the event is not counted up");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    nodes.patch_status("n1", &PatchParams::default(), &patch("8")).await.unwrap();
    let start = Instant::now();
    while pods.get("big").await.unwrap().spec.unwrap().node_name.is_none() {
        assert!(start.elapsed() < Duration::from_secs(10), "the pod is not bound");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    shutdown.cancel();
}
