#![allow(clippy::unwrap_used)]
use super::*;
use serde_json::{Value, json};

fn story(spec: Value, status: Value) -> Story {
    let pod = json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec, "status": status});
    Story { pod: serde_json::from_value(pod).unwrap(), ..Story::default() }
}

fn waiting(reason: &str, message: &str) -> Story {
    story(
        json!({"nodeName": "n", "containers": [{"name": "c"}]}),
        json!({"phase": "Pending", "containerStatuses": [{"name": "c", "image": "reg.io/app:1", "imageID": "",
            "ready": false, "restartCount": 0, "state": {"waiting": {"reason": reason, "message": message}}}]}),
    )
}

/// The whole answer as text.
fn told(story: &Story) -> String {
    explain(story)
        .into_iter()
        .flat_map(|finding| [vec![finding.what], finding.details, finding.fix].concat())
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn a_private_image_without_credentials() {
    let mut story = waiting(
        "ImagePullBackOff",
        "Back-off pulling image \"reg.io/app:1\": ErrImagePull: 401 Unauthorized (tried: anonymous)",
    );
    let text = told(&story);
    assert!(text.contains("create secret docker-registry registry --docker-server=reg.io"), "{text}");
    assert!(text.contains("patch serviceaccount default"), "{text}");
    story.pull_secrets.insert("mine".into(), SecretFact::Missing);
    let text = told(&story);
    assert!(text.contains("Secret ns/mine, which the pod names, does not exist"), "{text}");
    assert!(text.contains("create secret docker-registry mine"), "{text}");
    let present = |kind: &str, registry: &str| SecretFact::Present {
        kind: kind.into(),
        registries: vec![registry.into()],
    };
    story.pull_secrets.insert("mine".into(), present("kubernetes.io/dockerconfigjson", "other.io"));
    assert!(told(&story).contains("Secret ns/mine is for other.io, not for reg.io"));
    story.pull_secrets.insert("mine".into(), present("kubernetes.io/dockerconfigjson", "reg.io"));
    assert!(told(&story).contains("renew it"));
    story.pull_secrets.insert("mine".into(), present("Opaque", "reg.io"));
    assert!(told(&story).contains("has type Opaque"));
}

#[test]
fn each_cause_of_a_failed_pull_has_its_own_advice() {
    for (message, advice) in [
        ("404 Not Found", "typo"),
        ("x509: certificate signed by unknown authority", "/etc/sampan/certs.d/reg.io"),
        ("dial tcp: connection refused", "curl -v https://reg.io/v2/"),
        ("429 Too Many Requests", "limits pulls"),
        ("no match for platform in manifest", "architecture"),
        ("write: no space left on device", "sampan image prune"),
        ("what is this", "sampan image pull reg.io/app:1"),
    ] {
        let text = told(&waiting("ErrImagePull", message));
        assert!(text.contains(advice) && text.contains(message), "{message}: {text}");
    }
    assert!(told(&waiting("ErrImageNeverPull", "")).contains("sampan image load"));
    assert!(told(&waiting("InvalidImageName", "bad")).contains("no image name"));
    let text = told(&waiting("ContainerCreating", "Pulling image \"x\": 1.0 MiB of 2.0 MiB (0 of 1 layers)"));
    assert!(text.contains("pulling image \"x\": 1.0 MiB"), "{text}");
}

#[test]
fn what_a_container_refers_to_is_missing() {
    let text = told(&waiting("CreateContainerConfigError", "configmap \"settings\" not found"));
    assert!(text.contains("kubectl -n ns create configmap settings"), "{text}");
    let text = told(&waiting("CreateContainerConfigError", "secret \"token\" not found"));
    assert!(text.contains("create secret generic token"), "{text}");
    let text = told(&waiting("RunContainerError", "exec: \"nope\": executable file not found in $PATH"));
    assert!(text.contains("not in the image"), "{text}");
}

#[test]
fn a_crash_loop_with_its_last_words() {
    let mut story = waiting("CrashLoopBackOff", "back-off 10s restarting failed container=c");
    let status = &mut story.pod.status.as_mut().unwrap().container_statuses.as_mut().unwrap()[0];
    status.restart_count = 3;
    status.last_state =
        serde_json::from_value(json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})).unwrap();
    story.logs.insert("c".into(), "loading\nmore".into());
    let text = told(&story);
    for part in [
        "3 restarts",
        "more memory than its limit",
        "  | loading\n  | more",
        "resources.limits.memory",
        "--previous",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_pod_that_no_node_takes() {
    let story = story(
        json!({"containers": [{"name": "c"}]}),
        json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient memory."}]}),
    );
    let text = told(&story);
    assert!(text.contains("no node can run it") && text.contains("resources.requests"), "{text}");
}

#[test]
fn probes_volumes_and_verdicts() {
    let mut running = story(
        json!({"nodeName": "n", "containers": [{"name": "c"}]}),
        json!({"phase": "Running", "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": false,
            "started": true, "restartCount": 0, "containerID": "x", "state": {"running": {}}}]}),
    );
    running.events = vec![
        serde_json::from_value(json!({"metadata": {}, "reason": "Unhealthy", "message": "Readiness probe failed: connection refused",
            "involvedObject": {"fieldPath": "spec.containers{c}"}}))
        .unwrap(),
    ];
    assert!(told(&running).contains("Readiness probe failed: connection refused"));
    let mut pending =
        story(json!({"nodeName": "n", "containers": [{"name": "c"}]}), json!({"phase": "Pending"}));
    pending.events = vec![
        serde_json::from_value(json!({"metadata": {}, "reason": "FailedMount", "involvedObject": {},
            "message": "MountVolume.SetUp failed for volume \"v\" : configmap \"x\" not found"}))
        .unwrap(),
    ];
    pending.claims.insert("data".into(), Some("Pending".into()));
    let text = told(&pending);
    assert!(text.contains("create configmap x") && text.contains("describe pvc data"), "{text}");
    let evicted = story(
        json!({"nodeName": "n", "containers": []}),
        json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}),
    );
    assert!(told(&evicted).contains("the node evicted it (Evicted)"));
}

#[test]
fn nothing_is_wrong_with_a_healthy_pod() {
    let story = story(
        json!({"nodeName": "n", "containers": [{"name": "c"}]}),
        json!({"phase": "Running", "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": true,
            "started": true, "restartCount": 0, "state": {"running": {}}}]}),
    );
    assert_eq!(explain(&story), []);
}
