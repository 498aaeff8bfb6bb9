//! Images that cannot be had: what the pod's status and events say.

use std::fs;

use serde_json::json;

use crate::fixture::{
    Fault, Layer, Line, Node, Registry, SmallDisk, TestImage, busybox_layer, eventually, noise, tar_of,
};

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

#[test]
fn an_image_larger_than_the_disk_is_said_leaves_nothing_and_comes_when_there_is_room() {
    let registry = Registry::start();
    // The blob fits and its content does not; the other one's blob is too large already.
    let fills = Layer::gzip(&tar_of(&[("inside", &noise(24 << 20)), ("outside", b"out\n")]));
    let (digest, busybox) = (fills.digest(), Layer::gzip(&busybox_layer()));
    let fills = registry.push("fills:1", &TestImage::of(&[busybox, fills], &json!({})));
    let huge = Layer::plain(&tar_of(&[("huge", &noise(64 << 20))]));
    let huge = registry.push("huge:1", &TestImage::of(&[huge], &json!({})));
    let mut node = Node::prepare(&["--stop-pods=true"]);
    // The kubelet's own measures against a full disk are another test's.
    let config = json!({"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "evictionHard": {"imagefs.available": "1Mi", "nodefs.available": "1Mi"}});
    fs::write(node.path("kubelet.yaml"), config.to_string()).unwrap();
    node.add_option("--kubelet-config", &node.path("kubelet.yaml").display().to_string());
    // Beside the built-in image, which is as large as the binary.
    let room = fs::metadata(env!("CARGO_BIN_EXE_sampan")).unwrap().len() + (44 << 20);
    let disk = SmallDisk::mount(&node.path("data"), &format!("size={room}"));
    node.launch();
    let before = disk.used();
    node.apply(&pod("fills", &fills, "IfNotPresent"));
    node.wait_for("pod/fills", REASON, "ImagePullBackOff");
    let message = node.field("pod/fills", MESSAGE);
    let place = format!("no space left on the image file system at {}", node.path("data/runtime").display());
    for said in [&place, "`sampan image prune` removes unused images", "(`--data-dir`)"] {
        assert!(message.contains(said), "{said}: {message}");
    }
    node.wait_for_event("fills", "Failed", "Warning Error: ErrImagePull");
    let explained = node.explain("default/fills");
    assert!(explained.contains("the node's disk is full"), "{explained}");
    node.apply(&pod("huge", &huge, "IfNotPresent"));
    node.wait_for("pod/huge", REASON, "ImagePullBackOff");
    let message = node.field("pod/huge", MESSAGE);
    assert!(message.contains(&place) && message.contains("(the image needs 65 MiB more, "), "{message}");
    // The blob and all halves are gone, and the node can write down what happens.
    let hex = digest.trim_start_matches("sha256:").to_owned();
    let store = node.path("data/runtime");
    eventually("the space", || {
        let empty = |dir: &str| fs::read_dir(store.join(dir)).unwrap().next().is_none();
        let blob = store.join("content/blobs/sha256").join(&hex);
        (empty("content/ingest") && empty("snapshots/tmp") && !blob.exists()).then_some(())
    });
    assert!(disk.used() < before + (8 << 20), "{} of {before}", disk.used());
    node.kubectl(&["create", "configmap", "still", "--from-literal=a=b"]).ok();
    disk.resize(room + (300 << 20));
    node.wait_for("pod/fills", "{.status.phase}", "Succeeded");
    assert!(node.kubectl(&["logs", "fills"]).ok().ends_with("out\n"));
    node.kubectl(&["delete", "pod", "fills", "huge"]).ok();
    // The mount is the test's, not the node's.
    assert_eq!(node.terminate(), 0, "{}", node.log());
    drop(disk);
}

#[test]
fn a_schema_1_manifest_is_said_with_the_way_out() {
    // What registries served until 2017, from a real one.
    let registry = Registry::start_old();
    let old = registry.push_schema1("old/app:1", &TestImage::busybox(&json!({})));
    let node = Node::start();
    node.apply(&pod("old", &old, "IfNotPresent"));
    node.wait_for("pod/old", REASON, "ImagePullBackOff");
    let message = node.field("pod/old", MESSAGE);
    let wanted = "the image has a Docker schema 1 manifest, a format removed from registries and runtimes; push it again with a current tool";
    assert!(message.contains(wanted), "{message}");
    assert!(node.sampan(&["image", "pull", &old]).fails().contains("Docker schema 1 manifest"));
}

#[test]
fn a_registry_with_bad_days_gives_the_image_all_the_same() {
    let registry = Registry::start();
    let layers = [
        Layer::gzip(&busybox_layer()),
        Layer::gzip(&tar_of(&[("inside", &noise(2 << 20)), ("outside", b"out\n")])),
    ];
    let blob = format!("GET /v2/days/app/blobs/{}", layers[1].digest());
    let name = registry.push("days/app:1", &TestImage::of(&layers, &json!({})));
    let line = Line::to(&registry.host());
    let later = |status, seconds: u32| {
        let errors = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#.to_vec();
        Fault::Answer(status, format!("Retry-After: {seconds}\r\n"), errors)
    };
    line.fault("HEAD ", 1, later(429, 1));
    line.fault("/manifests/", 1, Fault::Answer(502, String::new(), Vec::new()));
    for fault in [Fault::Cut(700_000), later(503, 0), Fault::Cut(300_000), Fault::Cut(0)] {
        line.fault(&blob, 1, fault);
    }
    let node = Node::start();
    node.apply(&pod("days", &name.replace(&registry.host(), &line.host()), "IfNotPresent"));
    node.wait_for("pod/days", "{.status.phase}", "Succeeded");
    assert!(node.kubectl(&["logs", "days"]).ok().ends_with("out\n"));
    assert_eq!(node.events("days", "Failed"), Vec::<String>::new(), "one pull was enough");
    let parts: Vec<_> = line.requests(&blob).iter().map(|request| request.from).collect();
    assert_eq!(parts, [None, Some(700_000), Some(700_000), Some(1_000_000), Some(1_000_000)]);
}

#[test]
fn registries_are_reached_through_the_proxy_of_the_environment() {
    let registry = Registry::start();
    let app = registry.push("team/app:1", &TestImage::busybox(&json!({})));
    let line = Line::to(&registry.host());
    let mut node = Node::prepare(&[
        "--stop-pods=true",
        "--insecure-registries=registry.example:5000,direct.invalid:5000",
    ]);
    node.env("HTTP_PROXY", &format!("http://{}", line.host()));
    node.env("NO_PROXY", "direct.invalid");
    node.launch();
    let proxied = app.replace(&registry.host(), "registry.example:5000");
    let direct = app.replace(&registry.host(), "direct.invalid:5000");
    node.apply(&format!(
        "{}{}{}",
        pod("proxied", &proxied, "IfNotPresent"),
        pod("direct", &direct, "IfNotPresent"),
        pod("loopback", &app, "Always"),
    ));
    for name in ["proxied", "loopback"] {
        // Nothing is at `/inside`, but it ran.
        node.wait_for(&format!("pod/{name}"), "{.status.phase}", "Failed");
    }
    node.wait_for("pod/direct", REASON, "ImagePullBackOff");
    let through = line.requests("http://registry.example:5000/v2/team/app/");
    assert!(!through.is_empty() && through.len() == line.requests("").len(), "{:?}", line.requests(""));
}
