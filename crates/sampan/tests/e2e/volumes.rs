//! Volumes of every type in real containers: what is in them, how it follows the API, what is refused and how, and
//! what hostile pods make of them.

mod content;
mod huge_pages;
mod missing;
mod mounts;
mod trouble;
mod trust_bundles;

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::fixture::{Node, Registry, TestImage};

const SLEEP: &str = "trap 'exit 0' TERM; sleep 1000000 & wait";

/// A pod of one container `c`: its script, its volumes, where they are mounted.
fn pod(name: &str, image: &str, script: &str, volumes: &Value, mounts: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 2, "volumes": volumes,
            "containers": [{"name": "c", "image": image, "command": ["sh", "-c", script], "volumeMounts": mounts}],
        },
    })
}

fn config_map(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn image(registry: &Registry) -> String {
    registry.push("busybox:1", &TestImage::busybox(&json!({})))
}

fn sh(node: &Node, pod: &str, script: &str) -> String {
    node.kubectl(&["exec", pod, "--", "sh", "-c", script]).ok()
}

/// Waits until a script in the pod says this; how long it took.
#[track_caller]
fn until(node: &Node, pod: &str, script: &str, says: &str) -> Duration {
    let began = Instant::now();
    let mut last = String::new();
    while began.elapsed() < Duration::from_secs(60) {
        let said = node.kubectl(&["exec", pod, "--", "sh", "-c", script]);
        last = said.out + &said.err;
        if last.trim() == says {
            return began.elapsed();
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    panic!("{script:?} says {last:?}, not {says:?}");
}

fn ready(node: &Node, pod: &str) {
    node.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=60s"]).ok();
}

/// How many mounts below the node's directory speak of this part of a pod's volumes.
fn mounts(node: &Node, part: &str) -> usize {
    let data = node.path("data").display().to_string();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().filter(|line| line.contains(&data) && line.contains(part)).count()
}
