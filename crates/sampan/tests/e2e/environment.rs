//! What a container finds: its files, its user and rights, its names, its variables, and how its last words are kept.

use serde_json::json;

use crate::fixture::{Layer, Node, Registry, TestImage, busybox_layer, eventually, tar_of};

mod identity;
mod process;
mod user_namespaces;
mod variables;

/// A container of a shell script; `more` are further fields.
fn container(name: &str, image: &str, script: &str, more: &str) -> String {
    format!("  - {{name: {name}, image: '{image}', command: [sh, -c, {script:?}]{more}}}\n")
}

/// A pod that runs its containers once; `spec` are lines of its spec, indented by two.
fn pod(name: &str, spec: &str, containers: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n{spec}  containers:\n{containers}---\n"
    )
}

/// Busybox with a user `app` and this configuration.
fn image(registry: &Registry, tag: &str, config: &serde_json::Value) -> String {
    let users = tar_of(&[
        ("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\napp:x:1234:1234::/tmp:/bin/sh\n"),
        ("etc/group", b"root:x:0:\napp:x:1234:\nextra:x:50:app\n"),
    ]);
    let layers = [Layer::gzip(&busybox_layer()), Layer::gzip(&users)];
    registry.push(&format!("environment:{tag}"), &TestImage::of(&layers, config))
}

/// A registry with the plain image, and a node.
fn start(options: &[&str]) -> (Registry, Node, String) {
    let registry = Registry::start();
    let node = Node::start_with(&[&["--stop-pods=true"], options].concat());
    let image = image(&registry, "plain", &json!({"Env": ["PATH=/bin", "BOTH=image"]}));
    (registry, node, image)
}

/// What a container of a finished pod printed.
#[track_caller]
fn output(node: &Node, pod: &str, container: &str) -> String {
    eventually(&format!("the end of {pod}"), || {
        let phase = node.field(&format!("pod/{pod}"), "{.status.phase}");
        ["Succeeded", "Failed"].contains(&phase.as_str()).then_some(())
    });
    node.kubectl(&["logs", pod, "-c", container]).ok()
}

/// The reason and message that a container waits for, once there is a message.
#[track_caller]
fn waiting(node: &Node, pod: &str, container: &str) -> (String, String) {
    let of = |field: &str| {
        let path = format!("{{.status.containerStatuses[?(@.name==\"{container}\")].state.waiting.{field}}}");
        node.field(&format!("pod/{pod}"), &path)
    };
    let message =
        eventually(&format!("{pod} to wait"), || Some(of("message")).filter(|text| !text.is_empty()));
    (of("reason"), message)
}
