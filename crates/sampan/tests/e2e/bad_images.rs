//! Images that cannot be had: what the pod's status and events say.

use std::fs;

use serde_json::json;

use crate::fixture::{Layer, Node, Registry, SmallDisk, TestImage, busybox_layer, noise, tar_of};

fn pod(name: &str, image: &str, policy: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: c, image: '{image}', imagePullPolicy: {policy}, command: [sh, -c, 'ls /; cat /inside /outside']}}\n---\n"
    )
}

const REASON: &str = "{.status.containerStatuses[0].state.waiting.reason}";
const MESSAGE: &str = "{.status.containerStatuses[0].state.waiting.message}";

#[test]
fn img_27_28_30_33_34_images_that_cannot_be_had_are_named_in_status_and_events() {
    let registry = Registry::start();
    let missing = registry.name("team/none:1");
    let absent = registry.name("team/absent:1");
    let node = Node::start();
    node.apply(&format!(
        "{}{}{}{}",
        pod("missing", &missing, "IfNotPresent"),
        pod("closed", "127.0.0.1:1/nobody/there:1", "IfNotPresent"),
        pod("never", &absent, "Never"),
        pod("unreadable", "Not/An Image", "IfNotPresent"),
    ));
    node.wait_for("pod/missing", REASON, "ImagePullBackOff");
    let message = node.field("pod/missing", MESSAGE);
    let start = format!("Back-off pulling image \"{missing}\": ErrImagePull: ");
    assert!(message.starts_with(&start) && message.contains("404 Not Found"), "{message}");
    let cause = &message[start.len()..];
    node.wait_for_event("missing", "Pulling", &format!("Normal Pulling image \"{missing}\""));
    node.wait_for_event("missing", "Failed", &format!("Warning Failed to pull image \"{missing}\": {cause}"));
    node.wait_for_event("missing", "Failed", "Warning Error: ErrImagePull");
    node.wait_for_event("missing", "BackOff", &format!("Normal Back-off pulling image \"{missing}\""));
    node.wait_for_event("missing", "Failed", "Warning Error: ImagePullBackOff");
    assert_eq!(node.field("pod/missing", "{.status.phase}"), "Pending");
    let table = node.kubectl(&["get", "pod", "missing", "--no-headers"]).ok();
    let words: Vec<&str> = table.split_whitespace().collect();
    assert!(words[1] == "0/1" && ["ImagePullBackOff", "ErrImagePull"].contains(&words[2]), "{table}");

    node.wait_for("pod/closed", REASON, "ImagePullBackOff");
    let message = node.field("pod/closed", MESSAGE);
    assert!(
        message.contains("127.0.0.1:1") && message.contains("connect: connection refused (tried: anonymous)"),
        "{message}"
    );

    node.wait_for("pod/never", REASON, "ErrImageNeverPull");
    let text = format!("Container image \"{absent}\" is not present with pull policy of Never");
    assert_eq!(node.field("pod/never", MESSAGE), text);
    node.wait_for_event("never", "ErrImageNeverPull", &format!("Warning {text}"));
    node.wait_for_event("never", "Failed", "Warning Error: ErrImageNeverPull");
    assert!(!registry.log().contains("team/absent"), "no registry is asked");

    node.wait_for("pod/unreadable", REASON, "InvalidImageName");
    let events = node.events("unreadable", "InspectFailed");
    let start = "Warning Failed to apply default image tag \"Not/An Image\": couldn't parse image name \"Not/An Image\": ";
    assert!(events.iter().any(|event| event.starts_with(start)), "{events:#?}");
    node.wait_for_event("unreadable", "Failed", "Warning Error: InvalidImageName");

    // As soon as somebody loads the image, it is used: without an archive at hand, a pull does the same.
    registry.push("team/absent:1", &TestImage::busybox(&json!({})));
    node.sampan(&["image", "pull", &absent]).ok();
    node.wait_for("pod/never", "{.status.phase}", "Failed");
}

#[test]
fn hostile_and_damaged_layers_end_as_errors_and_touch_nothing_outside() {
    let registry = Registry::start();
    let base = busybox_layer();
    // A blob whose content is not what its digest says. Nobody else has this layer: one with the same content
    // from an honest blob would be shared, and the bad blob never asked for.
    let layer = Layer::gzip(&tar_of(&[("only-here", &[1; 50_000])]));
    let digest = layer.digest();
    let tampered = registry.push("bad/tampered:1", &TestImage::of(&[layer], &json!({})));
    let blob = registry.blob(&digest);
    let mut bytes = fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&blob, bytes).unwrap();
    // A tar that ends in the middle of a file.
    let cut = &tar_of(&[("inside", &[7; 100_000])])[..50_000];
    let cut =
        registry.push("bad/cut:1", &TestImage::of(&[Layer::plain(&base), Layer::zstd(cut)], &json!({})));
    // Paths that lead up and out stay inside.
    let name = format!("outside-{}", std::process::id());
    let up = tar_of(&[
        ("inside", b"in\n"),
        (&format!("../../../../../../../../tmp/{name}"), b"x"),
        ("../outside", b"out\n"),
    ]);
    let up = registry.push("bad/up:1", &TestImage::of(&[Layer::plain(&base), Layer::gzip(&up)], &json!({})));

    let node = Node::start();
    node.apply(&format!(
        "{}{}{}",
        pod("tampered", &tampered, "IfNotPresent"),
        pod("cut", &cut, "IfNotPresent"),
        pod("up", &up, "IfNotPresent"),
    ));
    for (pod, wanted) in [("tampered", &digest[..30]), ("cut", "damaged tar")] {
        node.wait_for(&format!("pod/{pod}"), REASON, "ImagePullBackOff");
        let message = node.field(&format!("pod/{pod}"), MESSAGE);
        assert!(message.contains(wanted), "{pod}: {message}");
    }
    node.wait_for("pod/up", "{.status.phase}", "Succeeded");
    assert!(node.kubectl(&["logs", "up"]).ok().ends_with("in\nout\n"));
    assert!(!std::path::Path::new("/tmp").join(&name).exists());
    // Nothing half-unpacked counts as an image.
    let images = node.sampan(&["image", "ls"]).ok();
    assert!(!images.contains("bad/tampered") && !images.contains("bad/cut"), "{images}");
}

#[test]
fn a_full_disk_during_a_pull_is_named_and_the_node_goes_on() {
    let registry = Registry::start();
    let large = Layer::plain(&tar_of(&[("large", &noise(24 << 20))]));
    let large = registry.push("large:1", &TestImage::of(&[large], &json!({})));
    let small = registry.push("small:1", &TestImage::busybox(&json!({})));
    let mut node = Node::prepare(&["--stop-pods=true"]);
    let disk = SmallDisk::mount(&node.path("data/runtime/content"), "size=8m");
    node.launch();
    node.apply(&pod("large", &large, "IfNotPresent"));
    node.wait_for("pod/large", REASON, "ImagePullBackOff");
    let message = node.field("pod/large", MESSAGE);
    assert!(message.contains("no space left on"), "{message}");
    node.apply(&pod("small", &small, "IfNotPresent"));
    node.wait_for("pod/small", "{.status.phase}", "Failed");
    // The mount is the test's, not the node's; without the blobs the node still starts and stops.
    assert_eq!(node.terminate(), 0, "{}", node.log());
    drop(disk);
}
