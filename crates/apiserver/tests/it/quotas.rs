//! LimitRanges and ResourceQuotas, as admission applies them.

use serde_json::{Value, json};

use crate::harness::{Api, PODS, pod};

const RANGES: &str = "/api/v1/namespaces/default/limitranges";
const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";

fn sized(name: &str, resources: Value) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["resources"] = resources;
    pod
}

#[tokio::test]
async fn pod_52_limit_ranges_give_defaults_and_say_so() {
    let api = Api::start().await;
    let limits = json!([{"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m", "memory": "64Mi"}}]);
    api.post(RANGES, json!({"metadata": {"name": "r"}, "spec": {"limits": limits}})).await.expect(201);
    let made = api.post(PODS, sized("p", json!({}))).await.expect(201);
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "500m"}})
    );
    let container = made["spec"]["containers"][0]["name"].as_str().unwrap();
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        format!(
            "LimitRanger plugin set: cpu, memory request for container {container}; cpu limit for container {container}"
        )
    );
    assert_eq!(made["status"]["qosClass"], "Burstable", "the class comes after the defaults");
}

#[tokio::test]
async fn limit_ranges_refuse_in_upstreams_words() {
    let api = Api::start().await;
    let limits = json!([
        {"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "4"}},
        {"type": "Pod", "max": {"memory": "1Gi"}},
    ]);
    api.post(RANGES, json!({"metadata": {"name": "r"}, "spec": {"limits": limits}})).await.expect(201);
    let memory = json!("512Mi");
    let with = |request: &str, limit: &str| json!({"requests": {"cpu": request}, "limits": {"cpu": limit, "memory": memory}});
    for (resources, text) in [
        (with("50m", "150m"), "minimum cpu usage per Container is 100m, but request is 50m"),
        (with("1", "3"), "maximum cpu usage per Container is 2, but limit is 3"),
        (
            with("100m", "500m"),
            "cpu max limit to request ratio per Container is 4, but provided ratio is 5.000000",
        ),
        (
            json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}),
            "maximum memory usage per Pod is 1Gi.  No limit is specified",
        ),
        (
            json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1", "memory": "2Gi"}}),
            "maximum memory usage per Pod is 1Gi, but limit is 2Gi",
        ),
    ] {
        let answer = api.post(PODS, sized("p", resources)).await;
        assert_eq!((answer.code, answer.message()), (403, format!("pods \"p\" is forbidden: {text}")));
    }
    api.post(PODS, sized("p", with("500m", "1"))).await.expect(201);
    let sum = json!([{"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}]);
    api.post(RANGES, json!({"metadata": {"name": "s"}, "spec": {"limits": sum}})).await.expect(201);
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}});
    let answer = api.post("/api/v1/namespaces/default/persistentvolumeclaims", claim).await;
    assert!(
        answer
            .message()
            .ends_with("maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi"),
        "{}",
        answer.message()
    );
}

#[tokio::test]
async fn rtc_24_quotas_are_kept_overhead_included() {
    let api = Api::start().await;
    let class =
        json!({"metadata": {"name": "heavy"}, "handler": "h", "overhead": {"podFixed": {"cpu": "250m"}}});
    api.post("/apis/node.k8s.io/v1/runtimeclasses", class).await.expect(201);
    let hard = json!({"requests.cpu": "500m", "pods": "5", "count/configmaps": "100"});
    api.post(QUOTAS, json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})).await.expect(201);
    let answer = api.post(PODS, pod("silent")).await;
    let container = pod("silent")["spec"]["containers"][0]["name"].as_str().unwrap().to_owned();
    assert_eq!(
        (answer.code, answer.message()),
        (
            403,
            format!(
                "pods \"silent\" is forbidden: failed quota: q: must specify requests.cpu for: {container}"
            )
        )
    );
    let mut heavy = sized("heavy", json!({"requests": {"cpu": "100m"}}));
    heavy["spec"]["runtimeClassName"] = json!("heavy");
    api.post(PODS, heavy).await.expect(201);
    let status = api.get(&format!("{QUOTAS}/q")).await.expect(200)["status"].clone();
    assert_eq!((&status["used"]["requests.cpu"], &status["used"]["pods"]), (&json!("350m"), &json!("1")));
    let answer = api.post(PODS, sized("more", json!({"requests": {"cpu": "200m"}}))).await;
    assert_eq!(
        answer.message(),
        "pods \"more\" is forbidden: exceeded quota: q, requested: requests.cpu=200m, used: requests.cpu=350m, \
         limited: requests.cpu=500m"
    );
    // What only asks takes nothing.
    api.post(&format!("{PODS}?dryRun=All"), sized("more", json!({"requests": {"cpu": "150m"}})))
        .await
        .expect(201);
    api.post(PODS, sized("more", json!({"requests": {"cpu": "150m"}}))).await.expect(201);
    assert_eq!(api.post(PODS, sized("last", json!({"requests": {"cpu": "1m"}}))).await.code, 403);
}

#[tokio::test]
async fn a_resize_asks_quotas_and_limit_ranges() {
    let api = Api::start().await;
    let limits = json!([{"type": "Container", "max": {"cpu": "2"}}]);
    api.post(RANGES, json!({"metadata": {"name": "r"}, "spec": {"limits": limits}})).await.expect(201);
    let hard = json!({"requests.cpu": "500m"});
    api.post(QUOTAS, json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})).await.expect(201);
    let cpu = |request: &str, limit: &str| json!({"requests": {"cpu": request}, "limits": {"cpu": limit}});
    let made = api.post(PODS, sized("p", cpu("100m", "1"))).await.expect(201);
    let container = made["spec"]["containers"][0]["name"].clone();
    let headers = [("content-type", "application/strategic-merge-patch+json")];
    let resize = async |resources: Value| {
        let body = json!({"spec": {"containers": [{"name": container, "resources": resources}]}});
        let path = format!("{PODS}/p/resize");
        api.call(http::Method::PATCH, &path, &headers, body.to_string().into()).await
    };
    let resized = resize(cpu("400m", "2")).await.expect(200);
    assert_eq!(resized["spec"]["containers"][0]["resources"], cpu("400m", "2"));
    assert_eq!((&made["metadata"]["generation"], &resized["metadata"]["generation"]), (&json!(1), &json!(2)));
    let used = || async { api.get(&format!("{QUOTAS}/q")).await.expect(200)["status"]["used"].clone() };
    assert_eq!(used().await["requests.cpu"], "400m");
    for (resources, text) in [
        (
            cpu("600m", "2"),
            "exceeded quota: q, requested: requests.cpu=200m, used: requests.cpu=400m, limited: requests.cpu=500m",
        ),
        (cpu("400m", "3"), "maximum cpu usage per Container is 2, but limit is 3"),
    ] {
        let answer = resize(resources).await;
        assert_eq!((answer.code, answer.message()), (403, format!("pods \"p\" is forbidden: {text}")));
    }
    let gone = resize(json!({"limits": null})).await;
    assert_eq!(gone.code, 422);
    assert!(gone.message().contains("resource limits cannot be removed"), "{}", gone.message());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotas_hold_when_many_create_at_once() {
    let api = Api::start().await;
    let hard = json!({"count/secrets": "8"});
    api.post(QUOTAS, json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})).await.expect(201);
    let path = "/api/v1/namespaces/default/secrets";
    let before = api.get(path).await.expect(200)["items"].as_array().unwrap().len();
    let names: Vec<String> = (0..20).map(|number| format!("s{number}")).collect();
    let answers = futures::future::join_all(
        names.iter().map(|name| api.post(path, json!({"metadata": {"name": name}}))),
    )
    .await;
    let made = answers.iter().filter(|answer| answer.code == 201).count();
    assert_eq!(made + before, 8);
    assert!(answers.iter().all(|answer| [201, 403].contains(&answer.code)));
}

#[tokio::test]
async fn what_one_quota_refuses_no_other_has_counted() {
    let api = Api::start().await;
    for (name, hard) in [("a", 5), ("b", 1)] {
        let quota = json!({"metadata": {"name": name}, "spec": {"hard": {"pods": hard}}});
        api.post(QUOTAS, quota).await.expect(201);
    }
    api.post(PODS, pod("one")).await.expect(201);
    assert_eq!(api.post(PODS, pod("two")).await.code, 403);
    let quota = api.get(&format!("{QUOTAS}/a")).await.expect(200);
    assert_eq!(quota["status"]["used"]["pods"], "1");
}
