//! Where people see how far a pull has come: in the pod's status, and as bars in a terminal.

use serde_json::json;

use crate::fixture::{
    Layer, Line, Node, Registry, Terminal, TestImage, busybox_layer, eventually, noise, tar_of,
};

#[test]
fn a_slow_pull_is_told_in_the_status_and_drawn_in_a_terminal() {
    let registry = Registry::start();
    let layers = |name: &str| {
        let mut content = noise(6 << 20);
        // No layer that another image has fetched already.
        content.extend_from_slice(name.as_bytes());
        [Layer::gzip(&busybox_layer()), Layer::plain(&tar_of(&[(name, &content)]))]
    };
    let line = Line::slow_to(&registry.host());
    let push = |name: &str, layers: &[Layer]| {
        let pushed = registry.push(name, &TestImage::of(layers, &json!({})));
        pushed.replace(&registry.host(), &line.host())
    };
    let image = push("slow/app:1", &layers("app"));
    let drawn = layers("drawn");
    let digest = drawn[1].digest().trim_start_matches("sha256:")[..12].to_owned();
    let drawn = push("slow/drawn:1", &drawn);
    let node = Node::start();
    node.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: slow}}\nspec:\n  restartPolicy: Never\n  containers:\n  - {{name: c, image: '{image}', command: ['true']}}\n"
    ));
    let message = eventually("a message", || {
        let message = node.field("pod/slow", "{.status.containerStatuses[0].state.waiting.message}");
        message.contains(" MiB (").then_some(message)
    });
    assert!(message.starts_with(&format!("Pulling image \"{image}\": ")), "{message}");
    assert!(message.contains(" of 2 layers)"), "{message}");
    let reason = node.field("pod/slow", "{.status.containerStatuses[0].state.waiting.reason}");
    assert_eq!(reason, "ContainerCreating");
    let page = format!("/api/v1/nodes/{}/proxy/metrics", node.name());
    let metric = |name: &str| {
        let text = node.kubectl(&["get", "--raw", &page]).ok();
        let value =
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<u64>().ok());
        value.unwrap_or_else(|| panic!("no {name} in\n{text}"))
    };
    assert_eq!((metric("sampan_image_pull_in_flight"), metric("sampan_image_pull_queued")), (1, 0));
    assert_eq!(metric("sampan_image_pull_bytes_total"), 0);
    let terminal = Terminal::start(&mut node.sampan_command(&["image", "pull", &drawn]));
    eventually("the bar", || {
        let shown = terminal.shown();
        (shown.contains(&digest) && shown.contains("downloading")).then_some(())
    });
    line.open();
    let said = terminal.end();
    assert!(said.code == 0 && said.out.contains("sha256:"), "{}", said.out);
    node.wait_for("pod/slow", "{.status.phase}", "Succeeded");
    assert_eq!(metric("sampan_image_pull_in_flight"), 0);
    assert!(metric("sampan_image_pull_bytes_total") > 6 << 20);
    assert_eq!(metric("kubelet_image_pull_duration_seconds_count{image_size_in_bytes=\"0-10MB\"}"), 1);
    let absent = image.replace(":1", ":2");
    node.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: absent}}\nspec:\n  containers:\n  - {{name: c, image: '{absent}'}}\n"
    ));
    eventually("the failure", || {
        let reason = node.field("pod/absent", "{.status.containerStatuses[0].state.waiting.reason}");
        reason.contains("ImagePull").then_some(())
    });
    assert!(metric("sampan_image_pull_failures_total{reason=\"ErrImagePull\"}") >= 1);
    // Somewhere else than in a terminal: lines, and none for a quick pull.
    let said = node.sampan(&["image", "pull", &drawn]);
    assert!(said.code == 0 && said.err.is_empty(), "{said:?}");
}
