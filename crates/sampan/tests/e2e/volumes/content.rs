//! What is in a volume, and that it follows the API.

use std::{fs, time::Duration};

use serde_json::{Value, json};

use super::{SLEEP, config_map, image, mounts, pod, ready, sh, until};
use crate::fixture::{Node, Registry, eventually};

#[test]
fn env_24_26_46_47_49_50_what_is_in_a_volume() {
    let (registry, node) = (Registry::start(), Node::start());
    let image = image(&registry);
    let volumes = json!([
        {"name": "disk", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "2Mi"}},
        {"name": "limited", "emptyDir": {"medium": "Memory"}},
        {"name": "map", "configMap": {"name": "map", "defaultMode": 0o640, "items": [
            {"key": "a", "path": "deep/a", "mode": 0o400}, {"key": "bytes", "path": "bytes"}]}},
        {"name": "secret", "secret": {"secretName": "secret"}},
        {"name": "none", "secret": {"secretName": "not-there", "optional": true}},
        {"name": "down", "downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "one", "mode": 0o400, "fieldRef": {"fieldPath": "metadata.annotations['note']"}},
            {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
            {"path": "memory", "resourceFieldRef": {"containerName": "c", "resource": "limits.memory", "divisor": "1Mi"}}]}},
        {"name": "all", "projected": {"sources": [
            {"configMap": {"name": "map", "items": [{"key": "a", "path": "from/map"}]}},
            {"secret": {"name": "secret"}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
            {"serviceAccountToken": {"path": "token", "audience": "somebody", "expirationSeconds": 600}}]}},
    ]);
    let names = ["disk", "memory", "limited", "map", "secret", "none", "down", "all"];
    let at: Vec<Value> =
        names.iter().map(|name| json!({"name": name, "mountPath": format!("/v/{name}")})).collect();
    let mut pod = pod("p", &image, SLEEP, &volumes, &json!(at));
    pod["metadata"]["labels"] = json!({"b": "2", "a": "1"});
    pod["metadata"]["annotations"] = json!({"note": "line\n\"quoted\""});
    pod["spec"]["securityContext"] = json!({"fsGroup": 2000, "runAsUser": 1000});
    pod["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "64Mi"}});
    let mut map = config_map("map", &json!({"a": "1"}));
    map["binaryData"] = json!({"bytes": "AP+A"});
    node.apply(&map.to_string());
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "secret"}, "stringData": {"key": "hush"}});
    node.apply(&secret.to_string());
    node.apply(&pod.to_string());
    ready(&node, "p");
    let says = |script: &str| sh(&node, "p", script).trim().to_owned();
    // ENV-46: everybody's, the group's; in memory as large as the least limit allows.
    assert_eq!(
        says("stat -c '%a %g' /v/disk /v/memory; touch /v/disk/x /v/memory/x; stat -c '%u %g' /v/disk/x"),
        "2777 2000\n2777 2000\n1000 2000"
    );
    let size = |at: &str| says(&format!("df -k {at} | tail -1 | awk '{{print $2}}'"));
    assert_eq!((size("/v/memory").as_str(), size("/v/limited").as_str()), ("2048", "65536"));
    // ENV-47, ENV-26: modes, with what the group needs.
    assert_eq!(
        says("stat -Lc '%a' /v/map/deep/a /v/map/bytes /v/down/one /v/down/name"),
        "440\n640\n440\n644"
    );
    assert_eq!(says("cat /v/map/deep/a /v/map/bytes | od -An -tx1").replace(' ', ""), "3100ff80");
    assert_eq!(
        says("cat /v/secret/key; stat -f -c %T /v/secret /v/all /v/down; ls /v/none"),
        "hushtmpfs\ntmpfs\ntmpfs"
    );
    assert!(says("echo no > /v/map/new || true; grep ' /v/map ' /proc/mounts").contains(" ro,"));
    // ENV-24.
    assert_eq!(says("cat /v/down/labels"), "a=\"1\"\nb=\"2\"");
    assert_eq!(says("cat /v/down/one; echo; cat /v/down/name /v/down/memory"), "line\n\"quoted\"\np64");
    // ENV-49, ENV-50: a token for this audience, this pod, ten minutes.
    assert_eq!(says("cat /v/all/from/map /v/all/key /v/all/namespace"), "1hushdefault");
    let token = says("cat /v/all/token");
    let claims = base64::Engine::decode(
        &base64::engine::general_purpose::URL_SAFE_NO_PAD,
        token.split('.').nth(1).unwrap(),
    );
    let claims: Value = serde_json::from_slice(&claims.unwrap()).unwrap();
    assert_eq!(claims["aud"], json!(["somebody"]));
    assert_eq!(claims["kubernetes.io"]["pod"]["name"], "p");
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 600);
    let api = "/var/run/secrets/kubernetes.io/serviceaccount";
    assert!(says(&format!("cat {api}/namespace; ls {api}")).starts_with("defaultca.crt"));
    // Nothing of it stays.
    assert_ne!(mounts(&node, "kubernetes.io~secret"), 0);
    node.kubectl(&["delete", "pod", "p"]).ok();
    eventually("the mounts to go", || (mounts(&node, "kubernetes.io~") == 0).then_some(()));
    eventually("the directory to go", || {
        fs::read_dir(node.path("data/kubelet/pods")).unwrap().next().is_none().then_some(())
    });
}

#[test]
fn env_25_47_content_follows_the_api() {
    let (registry, node) = (Registry::start(), Node::start());
    let volumes = json!([
        {"name": "map", "configMap": {"name": "map"}},
        {"name": "secret", "secret": {"secretName": "secret"}},
        {"name": "fixed", "configMap": {"name": "fixed"}},
        {"name": "maybe", "configMap": {"name": "maybe", "optional": true}},
        {"name": "down", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "all", "projected": {"sources": [{"configMap": {"name": "map", "items": [{"key": "a", "path": "x/a"}]}}]}},
    ]);
    let at = json!([
        {"name": "map", "mountPath": "/map"}, {"name": "secret", "mountPath": "/secret"},
        {"name": "fixed", "mountPath": "/fixed"}, {"name": "maybe", "mountPath": "/maybe"},
        {"name": "down", "mountPath": "/down"}, {"name": "all", "mountPath": "/all"},
        {"name": "map", "mountPath": "/sub/a", "subPath": "a"},
    ]);
    let mut pod = pod("p", &image(&registry), SLEEP, &volumes, &at);
    pod["metadata"]["labels"] = json!({"colour": "red"});
    // A hook that goes on: what a worker waits for keeps no file from being current.
    pod["spec"]["containers"][0]["lifecycle"] = json!({"postStart": {"exec": {"command": ["sh", "-c", "while ! test -e /tmp/go; do sleep 0.1; done"]}}});
    node.apply(&config_map("map", &json!({"a": "1", "b": "1"})).to_string());
    let mut fixed = config_map("fixed", &json!({"a": "1"}));
    fixed["immutable"] = json!(true);
    node.apply(&fixed.to_string());
    node.kubectl(&["create", "secret", "generic", "secret", "--from-literal=k=1"]).ok();
    node.apply(&pod.to_string());
    eventually("the container", || (node.kubectl(&["exec", "p", "--", "true"]).code == 0).then_some(()));
    let mut slowest = Duration::ZERO;
    let mut follows = |script: &str, says: &str| slowest = slowest.max(until(&node, "p", script, says));
    node.apply(&config_map("map", &json!({"a": "2", "c": "2"})).to_string());
    follows("cat /map/a /map/c /all/x/a; ls /map", "222a\nc");
    node.kubectl(&["patch", "secret", "secret", "-p", r#"{"stringData":{"k":"2"}}"#]).ok();
    follows("cat /secret/k", "2");
    node.kubectl(&["label", "pod", "p", "colour=blue", "--overwrite"]).ok();
    follows("cat /down/labels", "colour=\"blue\"");
    node.apply(&config_map("maybe", &json!({"k": "here"})).to_string());
    follows("cat /maybe/k", "here");
    node.kubectl(&["delete", "configmap", "maybe"]).ok();
    follows("ls /maybe", "");
    // The target is two seconds; a loaded machine gets ten times that before it is called a failure.
    assert!(slowest < Duration::from_secs(20), "{slowest:?}");
    // What does not follow: a file that was mounted by itself, and what cannot change.
    assert_eq!(sh(&node, "p", "cat /sub/a /fixed/a"), "11");
    let said = node.with_manifest(&["apply"], &fixed.to_string().replace("\"1\"", "\"2\"")).fails();
    assert!(said.contains("field is immutable when `immutable` is set"), "{said}");
    // A ConfigMap that vanishes takes no files with it.
    node.kubectl(&["delete", "configmap", "map"]).ok();
    node.wait_for_event(
        "p",
        "FailedMount",
        "Warning MountVolume.SetUp failed for volume \"map\" : configmap \"map\" not found",
    );
    assert_eq!(sh(&node, "p", "touch /tmp/go; cat /map/a"), "2");
}
