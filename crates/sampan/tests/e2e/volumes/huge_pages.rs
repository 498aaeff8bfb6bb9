//! Huge pages: resources of the node, and volumes made of them (ENV-46).

use std::fs;

use serde_json::json;

use super::{SLEEP, image, pod, ready, sh};
use crate::fixture::{Node, Registry};

/// How many pages of the usual size the kernel keeps for whoever asks.
const RESERVED: &str = "/proc/sys/vm/nr_hugepages";
const PAGE: u64 = 2 << 20;

/// More such pages than before, as long as this lives.
struct MorePages {
    before: u64,
}

impl MorePages {
    /// `None` where the machine gives none.
    fn reserve(count: u64) -> Option<Self> {
        let number = || fs::read_to_string(RESERVED).ok()?.trim().parse::<u64>().ok();
        let more = Self { before: number()? };
        let of_two_mebibytes = fs::exists("/sys/kernel/mm/hugepages/hugepages-2048kB").unwrap_or(false);
        let wanted = more.before + count;
        fs::write(RESERVED, wanted.to_string()).ok()?;
        (of_two_mebibytes && number()? >= wanted).then_some(more)
    }
}

impl Drop for MorePages {
    fn drop(&mut self) {
        let _cannot_be_helped = fs::write(RESERVED, self.before.to_string());
    }
}

#[test]
fn env_46_huge_pages_are_a_medium() {
    let registry = Registry::start();
    let more = MorePages::reserve(4);
    let node = Node::start();
    let image = image(&registry);
    let volume = |medium: &str| json!([{"name": "v", "emptyDir": {"medium": medium}}]);
    let mounts = json!([{"name": "v", "mountPath": "/huge"}]);
    // Who has no such pages has no such volume.
    node.apply(&pod("without", &image, "true", &volume("HugePages"), &mounts).to_string());
    let text = "Warning MountVolume.SetUp failed for volume \"v\" : medium HugePages: hugePages storage requested, but there is no resource request for huge pages";
    node.wait_for_event("without", "FailedMount", text);
    let with = |name: &str, medium: &str| {
        let mut with = pod(name, &image, SLEEP, &volume(medium), &mounts);
        with["spec"]["securityContext"] = json!({"fsGroup": 2000});
        with["spec"]["containers"][0]["resources"] =
            json!({"limits": {"hugepages-2Mi": "4Mi", "memory": "64Mi", "cpu": "100m"}});
        with.to_string()
    };
    if more.is_none() {
        // A machine without them offers none.
        node.apply(&with("waits", "HugePages"));
        node.wait_for("pod/waits", "{.status.phase}", "Pending");
        return;
    }
    let offered = node.field(&format!("node/{}", node.name()), r"{.status.allocatable.hugepages-2Mi}");
    assert!(offered.ends_with("Mi") && offered != "0", "{offered}");
    for (name, medium) in [("any", "HugePages"), ("named", "HugePages-2Mi")] {
        node.apply(&with(name, medium));
        ready(&node, name);
        let says = |script: &str| sh(&node, name, script).trim().to_owned();
        assert!(says("grep ' /huge ' /proc/mounts").contains("pagesize=2M"), "{name}");
        assert_eq!(says("stat -c '%a %g' /huge"), "2777 2000");
        // Two pages and no third.
        let fill =
            |pages: u64| format!("fallocate -l {} /huge/x && stat -c %s /huge/x || echo full", pages * PAGE);
        assert_eq!(says(&fill(2)), (2 * PAGE).to_string());
        assert!(says(&fill(3)).ends_with("full"));
        node.kubectl(&["delete", "pod", name]).ok();
    }
}
