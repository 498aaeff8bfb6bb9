//! Volumes that are too large or too many, and a daemon that is killed in the middle of them.

use std::{fs, os::unix::fs::symlink};

use rustix::mount::mount_bind;
use serde_json::{Value, json};

use super::{SLEEP, config_map, image, mounts, pod, ready, sh};
use crate::fixture::{Node, Registry, eventually};

#[test]
fn env_46_who_takes_more_disk_than_allowed_is_evicted() {
    let (registry, node) = (Registry::start(), Node::start());
    let image = image(&registry);
    let fill = |at: &str| format!("dd if=/dev/zero of={at}/x bs=1M count=8 2>/dev/null; sleep 1000000");
    let volumes = json!([{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]);
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    node.apply(&pod("volume", &image, &fill("/v"), &volumes, &mounts).to_string());
    let mut layer = pod("layer", &image, &fill("/tmp"), &json!([]), &json!([]));
    layer["spec"]["containers"][0]["resources"] = json!({"limits": {"ephemeral-storage": "2Mi"}});
    let beside = json!({"name": "beside", "image": image, "command": ["sleep", "1000000"]});
    layer["spec"]["containers"].as_array_mut().unwrap().push(beside);
    node.apply(&layer.to_string());
    let modest = json!([{"name": "v", "emptyDir": {"sizeLimit": "64Mi"}}]);
    node.apply(&pod("modest", &image, &fill("/v"), &modest, &mounts).to_string());
    for (name, message) in [
        ("volume", "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "),
        ("layer", "Container c exceeded its local ephemeral storage limit \"2Mi\". "),
    ] {
        let object = format!("pod/{name}");
        node.wait_for(&object, "{.status.phase}", "Failed");
        assert_eq!(node.field(&object, "{.status.reason}: {.status.message}"), format!("Evicted: {message}"));
        node.wait_for_event(name, "Evicted", &format!("Warning {message}"));
    }
    assert_eq!(node.field("pod/modest", "{.status.phase}"), "Running");
}

#[test]
fn env_47_large_and_many() {
    let (registry, node) = (Registry::start(), Node::start());
    let keys: serde_json::Map<String, Value> =
        (0..10_000).map(|n| (format!("key-{n}"), json!("x"))).collect();
    // kubectl's annotation could not hold these.
    node.with_manifest(&["create"], &config_map("many", &Value::Object(keys)).to_string()).ok();
    let large = "x".repeat((1 << 20) - 10);
    node.with_manifest(&["create"], &config_map("large", &json!({"k": large})).to_string()).ok();
    let more = "x".repeat((1 << 20) + 10);
    let said = node.with_manifest(&["create"], &config_map("more", &json!({"k": more})).to_string()).fails();
    assert!(said.contains("1048576"), "{said}");
    let volumes = json!([{"name": "many", "configMap": {"name": "many"}}, {"name": "large", "configMap": {"name": "large"}}]);
    let mounts = json!([{"name": "many", "mountPath": "/many"}, {"name": "large", "mountPath": "/large"}]);
    let script = "ls /many | wc -l; wc -c < /large/k";
    node.apply(&pod("p", &image(&registry), script, &volumes, &mounts).to_string());
    node.wait_for("pod/p", "{.status.phase}", "Succeeded");
    assert_eq!(node.kubectl(&["logs", "p"]).ok(), "10000\n1048566\n");
    for (name, source, text) in [
        ("mode", json!({"name": "many", "defaultMode": 0o1000}), "must be a number between 0 and 0777"),
        ("up", json!({"name": "many", "items": [{"key": "key-1", "path": "../x"}]}), "must not contain '..'"),
        (
            "root",
            json!({"name": "many", "items": [{"key": "key-1", "path": "/x"}]}),
            "must be a relative path",
        ),
        (
            "dots",
            json!({"name": "many", "items": [{"key": "key-1", "path": "..data"}]}),
            "must not start with '..'",
        ),
    ] {
        let volumes = json!([{"name": "v", "configMap": source}]);
        let said = node
            .with_manifest(&["create"], &pod(name, "i", "true", &volumes, &json!([])).to_string())
            .fails();
        assert!(said.contains(text), "{said}");
    }
}

#[test]
fn env_47_a_daemon_that_is_killed_leaves_no_volume_behind() {
    let (registry, mut node) = (Registry::start(), Node::start());
    let image = image(&registry);
    node.kubectl(&["create", "secret", "generic", "s", "--from-literal=k=1"]).ok();
    let volumes = json!([
        {"name": "secret", "secret": {"secretName": "s"}}, {"name": "memory", "emptyDir": {"medium": "Memory"}},
        {"name": "disk", "emptyDir": {}},
    ]);
    let mounts = json!([
        {"name": "secret", "mountPath": "/secret"}, {"name": "memory", "mountPath": "/memory"},
        {"name": "disk", "mountPath": "/disk"}, {"name": "secret", "mountPath": "/sub", "subPath": "k"},
    ]);
    // Wherever it is when it is killed: before, between and after the volumes of one of them.
    for round in 0..4 {
        let names: Vec<String> = (0..3).map(|n| format!("p-{round}-{n}")).collect();
        for name in &names {
            node.apply(&pod(name, &image, SLEEP, &volumes, &mounts).to_string());
        }
        if round % 2 == 1 {
            eventually("a volume", || (mounts_of(&node) > 0).then_some(()));
        }
        node.kill_9();
        node.launch();
        for name in &names {
            ready(&node, name);
            assert_eq!(
                sh(
                    &node,
                    name,
                    "cat /secret/k /sub; touch /memory/x /disk/x; grep -c ' /secret ' /proc/mounts"
                ),
                "111\n"
            );
        }
        let list: Vec<&str> =
            ["delete", "pod", "--wait=false"].into_iter().chain(names.iter().map(String::as_str)).collect();
        node.kubectl(&list).ok();
        // In the middle of the way out.
        if round >= 2 {
            node.kill_9();
            node.launch();
        }
        eventually("everything to go", || {
            (mounts_of(&node) == 0 && fs::read_dir(node.path("data/kubelet/pods")).unwrap().next().is_none())
                .then_some(())
        });
    }
    // A directory of a pod that nobody knows, with a link that leads out and a mount of the host's.
    node.kill_9();
    let orphan = node.path("data/kubelet/pods/0b97ac7c-9b3d-44dd-a9f7-000000000000");
    let host = node.path("host");
    fs::create_dir_all(orphan.join("volumes/kubernetes.io~empty-dir/v/deep")).unwrap();
    fs::create_dir_all(orphan.join("volume-subpaths/v/c/0")).unwrap();
    fs::create_dir(&host).unwrap();
    fs::write(host.join("file"), "content").unwrap();
    symlink(&host, orphan.join("volumes/kubernetes.io~empty-dir/v/link")).unwrap();
    mount_bind(&host, orphan.join("volume-subpaths/v/c/0")).unwrap();
    node.launch();
    eventually("the orphan to go", || (!orphan.exists()).then_some(()));
    assert_eq!(fs::read_to_string(host.join("file")).unwrap(), "content");
}

fn mounts_of(node: &Node) -> usize {
    mounts(node, "kubernetes.io~") + mounts(node, "volume-subpaths")
}
