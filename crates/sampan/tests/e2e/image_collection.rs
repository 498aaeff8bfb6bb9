//! A disk that fills up gives back what nothing uses.

use std::fs;

use serde_json::json;

use crate::fixture::{Layer, Node, Registry, SmallDisk, TestImage, eventually, noise, tar_of};

#[test]
fn img_83_a_full_disk_loses_unused_images_long_before_the_first_round() {
    let registry = Registry::start();
    let unused = Layer::plain(&tar_of(&[("unused", &noise(24 << 20))]));
    let unused = registry.push("unused:1", &TestImage::of(&[unused], &json!({})));
    let used = registry.push("used:1", &TestImage::busybox(&json!({})));
    let mut node = Node::prepare(&["--stop-pods=true"]);
    let config = json!({"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "evictionPressureTransitionPeriod": "1s", "evictionHard": {"imagefs.available": "24Mi"}});
    fs::write(node.path("kubelet.yaml"), config.to_string()).unwrap();
    node.add_option("--kubelet-config", &node.path("kubelet.yaml").display().to_string());
    // Beside the built-in image, which is as large as the binary, there is room for 64 MiB: blob and layer of the
    // large image leave less than the threshold.
    let room = fs::metadata(env!("CARGO_BIN_EXE_sampan")).unwrap().len() + (64 << 20);
    let disk = SmallDisk::mount(&node.path("data/runtime"), &format!("size={room}"));
    // What is there before the server is of unknown age, so old enough.
    node.sampan(&["image", "pull", &unused]).ok();
    let full = disk.used();
    node.launch();
    let name = node.name().to_owned();
    node.wait_for_event(&name, "EvictionThresholdMet", "Warning Attempting to reclaim ephemeral-storage");
    eventually("the space", || (disk.used() + (40 << 20) < full).then_some(()));
    let list = node.sampan(&["image", "ls"]).ok();
    assert!(!list.contains("/unused"), "{list}");
    let pressure = r#"{.status.conditions[?(@.type=="DiskPressure")].status}"#;
    node.wait_for(&format!("node/{name}"), pressure, "False");
    node.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: user}}\nspec:\n  restartPolicy: Never\n  containers:\n  - {{name: c, image: '{used}', command: ['true']}}\n"
    ));
    node.wait_for("pod/user", "{.status.phase}", "Succeeded");
    node.kubectl(&["delete", "pod", "user"]).ok();
    // The mount is the test's, not the node's.
    assert_eq!(node.terminate(), 0, "{}", node.log());
    drop(disk);
}
