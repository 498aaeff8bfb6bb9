//! The admission plugins.

use sampan_apiserver::UserInfo;
use sampan_apiserver::admission::AdmissionConfig;
use serde_json::{Value, json};

use crate::harness::{Api, PODS, pod};

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = pod("p");
    change(&mut pod["spec"]);
    pod
}

async fn runtime_class(api: &Api, class: Value) {
    api.post("/apis/node.k8s.io/v1/runtimeclasses", class).await.expect(201);
}

#[tokio::test]
async fn nothing_is_created_in_a_namespace_that_is_missing() {
    let api = Api::start().await;
    let answer = api.post("/api/v1/namespaces/none/configmaps", json!({"metadata": {"name": "x"}})).await;
    assert_eq!((answer.code, answer.message().as_str()), (404, r#"namespaces "none" not found"#));
}

#[tokio::test]
async fn env_50_the_token_is_mounted_unless_somebody_minds() {
    let api = Api::start().await;
    let made = api.post(PODS, pod("p")).await.expect(201);
    let spec = &made["spec"];
    assert_eq!(
        (spec["serviceAccountName"].as_str(), spec["serviceAccount"].as_str()),
        (Some("default"), Some("default"))
    );
    let volume = &spec["volumes"][0];
    let name = volume["name"].as_str().unwrap();
    assert!(name.starts_with("kube-api-access-") && name.len() == 21, "{name}");
    assert_eq!(volume["projected"]["defaultMode"], 420);
    let sources = &volume["projected"]["sources"];
    assert_eq!(sources[0]["serviceAccountToken"], json!({"expirationSeconds": 3607, "path": "token"}));
    assert_eq!(sources[1]["configMap"]["name"], "kube-root-ca.crt");
    assert_eq!(sources[2]["downwardAPI"]["items"][0]["fieldRef"]["fieldPath"], "metadata.namespace");
    let mount = &spec["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(mount["readOnly"], true);

    let account = json!({"metadata": {"name": "quiet"}, "automountServiceAccountToken": false});
    api.post("/api/v1/namespaces/default/serviceaccounts", account).await.expect(201);
    let mut quiet = pod("q");
    quiet["spec"]["serviceAccountName"] = json!("quiet");
    let made = api.post(PODS, quiet.clone()).await.expect(201);
    assert!(made["spec"].get("volumes").is_none());
    quiet["metadata"]["name"] = json!("r");
    quiet["spec"]["automountServiceAccountToken"] = json!(true);
    let made = api.post(PODS, quiet).await.expect(201);
    assert_eq!(made["spec"]["volumes"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn img_72_pull_secrets_are_copied_when_the_pod_has_none() {
    let api = Api::start().await;
    let account = json!({"metadata": {"name": "s"}, "imagePullSecrets": [{"name": "one"}]});
    api.post("/api/v1/namespaces/default/serviceaccounts", account).await.expect(201);
    let made = api.post(PODS, with(|spec| spec["serviceAccountName"] = json!("s"))).await.expect(201);
    assert_eq!(made["spec"]["imagePullSecrets"], json!([{"name": "one"}]));
    let mut own = with(|spec| {
        spec["serviceAccountName"] = json!("s");
        spec["imagePullSecrets"] = json!([{"name": "two"}]);
    });
    own["metadata"]["name"] = json!("own");
    let made = api.post(PODS, own).await.expect(201);
    assert_eq!(made["spec"]["imagePullSecrets"], json!([{"name": "two"}]));
}

#[tokio::test]
async fn img_73_missing_accounts_and_unlisted_secrets_are_refused() {
    let api = Api::start().await;
    let answer = api.post(PODS, with(|spec| spec["serviceAccountName"] = json!("none"))).await;
    assert_eq!(answer.code, 403);
    assert_eq!(
        answer.message(),
        r#"pods "p" is forbidden: error looking up service account default/none: serviceaccount "none" not found"#
    );
    let account = json!({"metadata": {"name": "strict", "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}}});
    api.post("/api/v1/namespaces/default/serviceaccounts", account).await.expect(201);
    let answer = api
        .post(
            PODS,
            with(|spec| {
                spec["serviceAccountName"] = json!("strict");
                spec["imagePullSecrets"] = json!([{"name": "x"}]);
            }),
        )
        .await;
    assert_eq!(
        answer.message(),
        r#"pods "p" is forbidden: imagePullSecrets[0].name="x" is not allowed because service account strict does not reference that imagePullSecret"#
    );
}

#[tokio::test]
async fn rtc_08_rtc_09_overhead_is_the_classes() {
    let api = Api::start().await;
    runtime_class(
        &api,
        json!({"metadata": {"name": "r"}, "handler": "h", "overhead": {"podFixed": {"cpu": "100m"}}}),
    )
    .await;
    runtime_class(&api, json!({"metadata": {"name": "light"}, "handler": "h"})).await;
    let made = api.post(PODS, with(|spec| spec["runtimeClassName"] = json!("r"))).await.expect(201);
    assert_eq!(made["spec"]["overhead"], json!({"cpu": "100m"}));
    let answer = api
        .post(
            PODS,
            with(|spec| {
                spec["runtimeClassName"] = json!("r");
                spec["overhead"] = json!({"cpu": "1"});
            }),
        )
        .await;
    assert_eq!(answer.code, 403);
    assert!(
        answer
            .message()
            .ends_with("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
    );
    for class in [None, Some("light")] {
        let answer = api
            .post(
                PODS,
                with(|spec| {
                    if let Some(class) = class {
                        spec["runtimeClassName"] = json!(class);
                    }
                    spec["overhead"] = json!({"cpu": "1"});
                }),
            )
            .await;
        assert_eq!(answer.code, 403);
        assert!(
            answer.message().ends_with(
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
            )
        );
    }
}

#[tokio::test]
async fn rtc_10_rtc_11_selectors_are_merged_or_conflict() {
    let api = Api::start().await;
    runtime_class(&api, json!({"metadata": {"name": "r"}, "handler": "h", "scheduling": {"nodeSelector": {"k": "a", "l": "c"}}})).await;
    let made = api
        .post(
            PODS,
            with(|spec| {
                spec["runtimeClassName"] = json!("r");
                spec["nodeSelector"] = json!({"k": "a", "own": "x"});
            }),
        )
        .await
        .expect(201);
    assert_eq!(made["spec"]["nodeSelector"], json!({"k": "a", "l": "c", "own": "x"}));
    let answer = api
        .post(
            PODS,
            with(|spec| {
                spec["runtimeClassName"] = json!("r");
                spec["nodeSelector"] = json!({"k": "b"});
            }),
        )
        .await;
    assert_eq!(
        answer.message(),
        r#"pods "p" is forbidden: conflict: runtimeClass.scheduling.nodeSelector[k] = a; pod.spec.nodeSelector[k] = b"#
    );
}

#[tokio::test]
async fn rtc_13_rtc_15_a_class_must_exist() {
    let api = Api::start().await;
    for dry in ["", "?dryRun=All"] {
        let answer =
            api.post(&format!("{PODS}{dry}"), with(|spec| spec["runtimeClassName"] = json!("x"))).await;
        assert_eq!(answer.code, 403);
        assert_eq!(answer.message(), r#"pods "p" is forbidden: pod rejected: RuntimeClass "x" not found"#);
    }
    runtime_class(&api, json!({"metadata": {"name": "x"}, "handler": "h"})).await;
    let made = api.post(PODS, with(|spec| spec["runtimeClassName"] = json!("x"))).await.expect(201);
    assert!(made["spec"].get("overhead").is_none());
    api.delete("/apis/node.k8s.io/v1/runtimeclasses/x").await.expect(200);
    let mut again = with(|spec| spec["runtimeClassName"] = json!("x"));
    again["metadata"]["name"] = json!("again");
    assert_eq!(api.post(PODS, again).await.code, 403);
}

#[tokio::test]
async fn img_50_img_51_img_52_always_pull_images() {
    let admission = AdmissionConfig { enable: vec!["AlwaysPullImages".into()], ..Default::default() };
    let api = Api::start_with(admission).await;
    let made = api
        .post(
            PODS,
            with(|spec| {
                spec["containers"][0]["imagePullPolicy"] = json!("Never");
                spec["initContainers"] =
                    json!([{"name": "i", "image": "i:1", "imagePullPolicy": "IfNotPresent"}]);
                spec["volumes"] =
                    json!([{"name": "v", "image": {"reference": "v:1", "pullPolicy": "Never"}}]);
            }),
        )
        .await
        .expect(201);
    assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "Always");
    assert_eq!(made["spec"]["initContainers"][0]["imagePullPolicy"], "Always");
    assert_eq!(made["spec"]["volumes"][0]["image"]["pullPolicy"], "Always");
    // IMG-52: an update without a new image is none of its business, nor is another resource.
    let label = json!({"metadata": {"labels": {"a": "b"}}}).to_string();
    let merge = [("content-type", "application/merge-patch+json")];
    api.call(http::Method::PATCH, &format!("{PODS}/p"), &merge, label.into()).await.expect(200);
}

struct FakeRegistry;

#[async_trait::async_trait]
impl sampan_apiserver::admission::DigestResolver for FakeRegistry {
    async fn digest(&self, image: &str, pull_secrets: &[Value]) -> Result<Option<String>, String> {
        match image {
            "sampan.local/toolbox" => Ok(None),
            "private:1" if pull_secrets.is_empty() => Err("401 Unauthorized".to_owned()),
            _ => Ok(Some(format!("sha256:{}", "a".repeat(64)))),
        }
    }
}

#[tokio::test]
async fn img_54_tags_are_pinned_at_creation_and_digests_stay() {
    let admission = AdmissionConfig {
        enable: vec!["DigestPinning".into()],
        digests: Some(std::sync::Arc::new(FakeRegistry)),
        ..Default::default()
    };
    let api = Api::start_with(admission).await;
    let own = format!("c@sha256:{}", "b".repeat(64));
    let made = api
        .post(
            PODS,
            with(|spec| {
                spec["containers"] = json!([{"name": "a", "image": "a:1"}, {"name": "b", "image": own},
                    {"name": "c", "image": "sampan.local/toolbox"}]);
                spec["volumes"] = json!([{"name": "v", "image": {"reference": "v"}}]);
            }),
        )
        .await
        .expect(201);
    let image = |index: usize| made["spec"]["containers"][index]["image"].as_str().unwrap().to_owned();
    assert_eq!(image(0), format!("a:1@sha256:{}", "a".repeat(64)));
    assert_eq!((image(1), image(2)), (own.clone(), "sampan.local/toolbox".to_owned()));
    let reference = &made["spec"]["volumes"][0]["image"]["reference"];
    assert_eq!(*reference, format!("v@sha256:{}", "a".repeat(64)));
    // A name without a tag meant `latest` when its policy was defaulted.
    assert_eq!(made["spec"]["volumes"][0]["image"]["pullPolicy"], "Always");
    // A later image is pinned, too, and so is what `kubectl debug` brings; what is there stays.
    let merge = [("content-type", "application/strategic-merge-patch+json")];
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "d:1"}]}}).to_string();
    let path = format!("{PODS}/p/ephemeralcontainers");
    let patched = api.call(http::Method::PATCH, &path, &merge, debug.into()).await.expect(200);
    let pinned = format!("d:1@sha256:{}", "a".repeat(64));
    assert_eq!(patched["spec"]["ephemeralContainers"][0]["image"], pinned);
    let image = json!({"spec": {"containers": [{"name": "a", "image": "a:2"}]}}).to_string();
    let patched = api.call(http::Method::PATCH, &format!("{PODS}/p"), &merge, image.into()).await.expect(200);
    assert_eq!(patched["spec"]["containers"][0]["image"], format!("a:2@sha256:{}", "a".repeat(64)));
    assert_eq!(patched["spec"]["containers"][1]["image"], own);
    let image = json!({"spec": {"containers": [{"name": "a", "image": "private:1"}]}}).to_string();
    let refused = api.call(http::Method::PATCH, &format!("{PODS}/p"), &merge, image.into()).await;
    assert_eq!(refused.code, 403, "{}", refused.message());
    let answer = api.post(PODS, with(|spec| spec["containers"][0]["image"] = json!("private:1"))).await;
    assert_eq!(answer.code, 403);
    let expected = r#"is forbidden: image "private:1" cannot be pinned to a digest: 401 Unauthorized"#;
    assert!(answer.message().ends_with(expected), "{}", answer.message());
}

#[tokio::test]
async fn img_50_it_is_off_by_default() {
    let api = Api::start().await;
    let made = api
        .post(PODS, with(|spec| spec["containers"][0]["imagePullPolicy"] = json!("Never")))
        .await
        .expect(201);
    assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "Never");
}

#[tokio::test]
async fn priority_and_tolerations_are_filled_in() {
    let api = Api::start().await;
    let made = api
        .post(PODS, with(|spec| spec["priorityClassName"] = json!("system-node-critical")))
        .await
        .expect(201);
    assert_eq!(made["spec"]["priority"], 2_000_001_000);
    assert_eq!(made["spec"]["preemptionPolicy"], "PreemptLowerPriority");
    let keys: Vec<_> =
        made["spec"]["tolerations"].as_array().unwrap().iter().map(|t| t["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]);
    let answer = api.post(PODS, with(|spec| spec["priorityClassName"] = json!("none"))).await;
    assert_eq!(answer.message(), r#"pods "p" is forbidden: no PriorityClass with name none was found"#);
    let class = json!({"metadata": {"name": "usual"}, "value": 5, "globalDefault": true});
    api.post("/apis/scheduling.k8s.io/v1/priorityclasses", class).await.expect(201);
    let mut usual = pod("usual");
    usual["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    let made = api.post(PODS, usual).await.expect(201);
    assert_eq!(
        (made["spec"]["priority"].as_i64(), made["spec"]["priorityClassName"].as_str()),
        (Some(5), Some("usual"))
    );
    assert_eq!(made["spec"]["tolerations"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_kubelet_writes_only_what_is_its_own() {
    let api = Api::start().await;
    let node = UserInfo::node("a");
    let json_body = [("content-type", "application/json")];
    let create =
        |name: &'static str, labels: Value| json!({"metadata": {"name": name, "labels": labels}}).to_string();
    let post = http::Method::POST;
    let nodes = "/api/v1/nodes";
    let answer = api.call_as(&node, post.clone(), nodes, &json_body, create("b", json!({})).into()).await;
    assert_eq!(answer.code, 403, "{}", answer.message());
    assert!(
        answer.message().contains(r#"node "a" is not allowed to modify node "b""#),
        "{}",
        answer.message()
    );
    let labels = json!({"kubernetes.io/hostname": "a", "node-restriction.kubernetes.io/x": "1"});
    let answer = api.call_as(&node, post.clone(), nodes, &json_body, create("a", labels).into()).await;
    assert!(
        answer.message().contains("is not allowed to modify labels: node-restriction.kubernetes.io/x"),
        "{}",
        answer.message()
    );
    api.call_as(
        &node,
        post.clone(),
        nodes,
        &json_body,
        create("a", json!({"kubernetes.io/os": "linux"})).into(),
    )
    .await
    .expect(201);

    api.pod("mine", Some("a")).await;
    api.pod("other", Some("b")).await;
    let zero = format!("{PODS}/other?gracePeriodSeconds=0");
    assert_eq!(api.call_as(&node, http::Method::DELETE, &zero, &[], vec![]).await.code, 403);
    let status = json!({"status": {"phase": "Running"}}).to_string();
    let merge = [("content-type", "application/merge-patch+json")];
    let path = format!("{PODS}/other/status");
    assert_eq!(api.call_as(&node, http::Method::PATCH, &path, &merge, status.clone().into()).await.code, 403);
    let path = format!("{PODS}/mine/status");
    api.call_as(&node, http::Method::PATCH, &path, &merge, status.into()).await.expect(200);
    let zero = format!("{PODS}/mine?gracePeriodSeconds=0");
    api.call_as(&node, http::Method::DELETE, &zero, &[], vec![]).await.expect(200);
}
