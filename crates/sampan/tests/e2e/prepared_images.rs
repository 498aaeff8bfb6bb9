//! Images without their registry: archives that people put there, pins, mirrors.

use std::{fs, process::Command};

use serde_json::json;

use crate::fixture::{Node, Registry, TestImage, eventually};

fn pod(name: &str, image: &str, policy: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: c, image: '{image}', imagePullPolicy: {policy}, command: ['true']}}\n---\n"
    )
}

const REASON: &str = "{.status.containerStatuses[0].state.waiting.reason}";
const MESSAGE: &str = "{.status.containerStatuses[0].state.waiting.message}";

#[test]
fn archives_pins_and_mirrors() {
    let registry = Registry::start();
    let image = TestImage::busybox(&json!({}));
    let pushed = registry.push("air/gap:1", &image);
    let address = pushed.split('/').next().unwrap().to_owned();
    let hosts =
        tempfile::Builder::new().prefix(&format!("smpt-{}-hosts-", std::process::id())).tempdir().unwrap();
    fs::create_dir(hosts.path().join("registry.example")).unwrap();
    fs::write(
        hosts.path().join("registry.example/hosts.toml"),
        format!("server = \"http://127.0.0.1:1\"\n[host.\"http://{address}\"]\ncapabilities = [\"pull\", \"resolve\"]\n"),
    )
    .unwrap();
    let node =
        Node::start_with(&["--stop-pods=true", "--registry-hosts-dirs", hosts.path().to_str().unwrap()]);
    // IMG-27: waits, and starts as soon as somebody copies the archive.
    node.apply(&pod("never", "gap.example/air/gap:1", "Never"));
    node.wait_for("pod/never", REASON, "ErrImageNeverPull");
    let archive = node.path("gap.tar");
    let copied = Command::new("skopeo")
        .args(["copy", "--quiet", "--insecure-policy"])
        .arg(format!("oci:{}:latest", image.layout().display()))
        .arg(format!("docker-archive:{}:gap.example/air/gap:1", archive.display()))
        .status()
        .unwrap();
    assert!(copied.success());
    fs::rename(&archive, node.path("data/images/gap.tar")).unwrap();
    node.wait_for("pod/never", "{.status.phase}", "Succeeded");
    // Pinned: nothing takes it.
    let listed = || node.sampan(&["image", "ls"]).ok();
    let line = |list: &str| list.lines().find(|line| line.contains("gap.example")).map(str::to_owned);
    assert!(line(&listed()).unwrap().ends_with("(pinned)"), "{}", listed());
    node.kubectl(&["delete", "pod", "never", "--wait"]).ok();
    node.sampan(&["image", "prune"]).ok();
    assert!(line(&listed()).is_some(), "{}", listed());
    node.sampan(&["image", "unpin", "gap.example/air/gap:1"]).ok();
    assert!(!line(&listed()).unwrap().contains("pinned"), "{}", listed());
    // The same image under a name whose registry only a mirror knows.
    node.apply(&pod("mirrored", "registry.example/air/gap:1", "Always"));
    node.wait_for("pod/mirrored", "{.status.phase}", "Succeeded");
    let id = node.field("pod/mirrored", "{.status.containerStatuses[0].imageID}");
    assert!(id.starts_with("registry.example/air/gap@sha256:"), "{id}");
    // From the directory of a layout; nameless, so known by its id.
    let layout = image.layout().display().to_string();
    let loaded = node.sampan(&["image", "load", &layout]).ok();
    assert!(loaded.starts_with("loaded "), "{loaded}");
    let error = node.sampan(&["image", "load", hosts.path().to_str().unwrap()]).fails();
    assert!(error.contains("not an OCI layout"), "{error}");
    // IMG-31: the mirror is gone, too. Who was asked, and what they said, stands in the message.
    drop(registry);
    node.apply(&pod("down", "registry.example/air/gap:2", "Always"));
    eventually("RegistryUnavailable", || {
        let (reason, message) = (node.field("pod/down", REASON), node.field("pod/down", MESSAGE));
        let said = message.contains("because the registry is unavailable")
            && message.contains(&format!("http://{address}: "))
            && message.contains("http://127.0.0.1:1: ")
            && message.contains("connection refused");
        (["RegistryUnavailable", "ImagePullBackOff"].contains(&reason.as_str()) && said).then_some(())
    });
}
