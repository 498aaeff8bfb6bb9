//! How volumes are mounted: parts of them, on links, read-only, with mounts that travel.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
use serde_json::{Value, json};
use tar::EntryType::{Directory, Symlink};

use super::{SLEEP, config_map, image, pod, ready};
use crate::fixture::{Layer, Node, Registry, TestImage, busybox_layer, eventually, tar_with};

/// A directory and a link to the host change places all the time; ends with the directory in its place.
struct Swapper {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
}

impl Swapper {
    /// Swaps `volume`/swap and `volume`/away.
    fn start(volume: &Path) -> Self {
        let (directory, link) = (volume.join("swap"), volume.join("away"));
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        let swap = move || {
            let mut swaps = 0;
            while !ends.load(Ordering::Relaxed) || swaps % 2 == 1 {
                renameat_with(CWD, &directory, CWD, &link, RenameFlags::EXCHANGE).unwrap();
                swaps += 1;
            }
            swaps
        };
        Self { over, thread: Some(std::thread::spawn(swap)) }
    }

    fn stop(&mut self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().map_or(0, |thread| thread.join().unwrap())
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

#[test]
fn env_52_53_sub_paths_stay_inside() {
    let (registry, node) = (Registry::start(), Node::start());
    let image = image(&registry);
    // An init container prepares links out of the volume and waits; then a directory and a link to the host change places
    // thousands of times a second, while containers that mount it start one after the other.
    let volumes = json!([{"name": "v", "emptyDir": {}}]);
    let had_new = Path::new("/new").exists();
    let host = node.path("host");
    fs::create_dir_all(host.join("etc")).unwrap();
    fs::write(host.join("etc/hostname"), "of the host\n").unwrap();
    let prepare = format!(
        "ln -s / /v/root; ln -s ../../../../../../../.. /v/up; ln -s {} /v/away; mkdir -p /v/swap/etc; \
         echo inside > /v/swap/etc/hostname; until test -e /v/go; do sleep 0.1; done",
        host.display()
    );
    let look = "cat /m/hostname; ls /up; echo $(ls /made)";
    let names: Vec<String> = (0..8).map(|n| format!("c{n}")).collect();
    let looking = names.iter().map(|name| {
        json!({"name": name, "image": image, "command": ["sh", "-c", look], "env": [{"name": "WHO", "value": "me"}],
            "volumeMounts": [
                {"name": "v", "mountPath": "/m", "subPath": "swap/etc"},
                {"name": "v", "mountPath": "/up", "subPath": "up/root/new"},
                {"name": "v", "mountPath": "/made", "subPathExpr": "$(WHO)/logs"},
            ]})
    });
    let mut pod = pod("p", &image, look, &volumes, &json!([]));
    let spec = &mut pod["spec"];
    // The volume stays as long as one of them runs.
    let keeper = json!({"name": "keeper", "image": image, "command": ["sh", "-c", SLEEP]});
    spec["containers"] = looking.chain([keeper]).collect();
    spec["initContainers"] = json!([{"name": "prepare", "image": image, "command": ["sh", "-c", prepare],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]);
    node.apply(&pod.to_string());
    let uid = node.field("pod/p", "{.metadata.uid}");
    let volume = node.path(&format!("data/kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/v"));
    eventually("what is to be swapped", || volume.join("swap/etc/hostname").exists().then_some(()));
    let mut swapper = Swapper::start(&volume);
    fs::write(volume.join("go"), "").unwrap();
    // Each has started, or was refused since it met the link at the wrong moment; then it starts later.
    let count = |what: &str| {
        let path = format!(r#"{{range .status.containerStatuses[*]}}{what}{{"\n"}}{{end}}"#);
        node.field("pod/p", &path).lines().filter(|line| !line.is_empty()).count()
    };
    eventually("a try of each", || {
        (count("{.state.terminated.reason}{.state.waiting.message}") >= names.len()).then_some(())
    });
    assert_ne!(swapper.stop(), 0);
    eventually("the end of each", || (count("{.state.terminated.reason}") == names.len()).then_some(()));
    for name in &names {
        let logs = node.kubectl(&["logs", "p", "-c", name]).ok();
        assert!(!logs.contains("of the host"), "{logs}");
    }
    assert_eq!(fs::read_dir(host.join("etc")).unwrap().count(), 1, "something was made on the host");
    assert!(volume.join("me/logs").is_dir() && volume.join("new").is_dir());
    assert_eq!(Path::new("/new").exists(), had_new);

    let bad = |name: &str, mut mount: Value| {
        mount["name"] = json!("v");
        mount["mountPath"] = json!("/m");
        pod_with_env(name, &image, &volumes, &mount)
    };
    for (name, expression, text) in [
        ("unknown", "$(NOPE)", "missing value for \"NOPE\""),
        ("absolute", "$(ROOT)", "error SubPath `/etc` must not be an absolute path"),
        ("climbing", "a/$(UP)", "unable to provision SubPath `a/..`: must not contain '..'"),
    ] {
        node.apply(&bad(name, json!({"subPathExpr": expression})).to_string());
        let object = format!("pod/{name}");
        node.wait_for(
            &object,
            "{.status.containerStatuses[0].state.waiting.reason}",
            "CreateContainerConfigError",
        );
        assert_eq!(node.field(&object, "{.status.containerStatuses[0].state.waiting.message}"), text);
    }
    for (sub_path, text) in [("/etc", "must be a relative path"), ("a/../../b", "must not contain '..'")] {
        let said =
            node.with_manifest(&["create"], &bad("bad", json!({"subPath": sub_path})).to_string()).fails();
        assert!(said.contains(text), "{said}");
    }
}

fn pod_with_env(name: &str, image: &str, volumes: &Value, mount: &Value) -> Value {
    let mut pod = pod(name, image, SLEEP, volumes, &json!([mount]));
    pod["spec"]["containers"][0]["env"] =
        json!([{"name": "ROOT", "value": "/etc"}, {"name": "UP", "value": ".."}]);
    pod
}

/// A directory that is a shared mount, as `/` is where systemd runs; another file system is mounted in it.
struct SharedTree(std::path::PathBuf);

impl SharedTree {
    fn mount(at: std::path::PathBuf) -> Self {
        fs::create_dir_all(at.join("inner")).unwrap();
        mount_bind(&at, &at).unwrap();
        mount_change(&at, MountPropagationFlags::SHARED).unwrap();
        rustix::mount::mount(
            "tmpfs",
            at.join("inner"),
            "tmpfs",
            MountFlags::empty(),
            None::<&std::ffi::CStr>,
        )
        .unwrap();
        Self(at)
    }
}

impl Drop for SharedTree {
    fn drop(&mut self) {
        for inner in ["inner", "from-host", "from-pod", ""] {
            let _ = unmount(self.0.join(inner), UnmountFlags::DETACH);
        }
    }
}

#[test]
fn env_54_55_read_only_trees_and_mounts_that_travel() {
    let (registry, node) = (Registry::start(), Node::start());
    let image = image(&registry);
    let tree = SharedTree::mount(node.path("tree"));
    let volumes = json!([{"name": "v", "hostPath": {"path": tree.0.display().to_string()}}]);
    let write = "for at in no possible yes; do touch /$at/x && echo $at; touch /$at/inner/x && echo $at/inner; done; true";
    let mount = |at: &str, mode: Option<&str>| {
        let mut mount = json!({"name": "v", "mountPath": at, "readOnly": true});
        if let Some(mode) = mode {
            mount["recursiveReadOnly"] = json!(mode);
        }
        mount
    };
    let mounts = [mount("/no", None), mount("/possible", Some("IfPossible")), mount("/yes", Some("Enabled"))];
    node.apply(&pod("p", &image, write, &volumes, &json!(mounts)).to_string());
    node.wait_for("pod/p", "{.status.phase}", "Succeeded");
    let log = node.kubectl(&["logs", "p"]).ok();
    assert_eq!(
        log.lines().filter(|line| !line.starts_with("touch:")).collect::<Vec<_>>(),
        ["no/inner"],
        "{log}"
    );
    let listed = r#"{range .status.containerStatuses[0].volumeMounts[*]}{.name} {.mountPath} {.readOnly} {.recursiveReadOnly}{"\n"}{end}"#;
    let listed = node.field("pod/p", listed);
    for line in ["v /no true Disabled", "v /possible true Enabled", "v /yes true Enabled"] {
        assert!(listed.lines().any(|have| have == line), "{listed}");
    }

    // What the host mounts later arrives; what a privileged container mounts does, too.
    let wait = "until test -e /v/from-host/x; do sleep 0.05; done; echo arrived; mkdir -p /v/from-pod; mount -t tmpfs none /v/from-pod && touch /v/from-pod/x; sleep 1000000";
    let mut travel = pod(
        "travel",
        &image,
        wait,
        &volumes,
        &json!([{"name": "v", "mountPath": "/v", "mountPropagation": "Bidirectional"}]),
    );
    let said = node.with_manifest(&["create"], &travel.to_string()).fails();
    assert!(said.contains("available only to privileged containers"), "{said}");
    travel["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    node.apply(&travel.to_string());
    ready(&node, "travel");
    let from_host = tree.0.join("from-host");
    fs::create_dir(&from_host).unwrap();
    fs::create_dir(node.path("other")).unwrap();
    fs::write(node.path("other").join("x"), "").unwrap();
    mount_bind(node.path("other"), &from_host).unwrap();
    eventually("the mount in the pod", || {
        node.kubectl(&["logs", "travel"]).out.starts_with("arrived").then_some(())
    });
    eventually("the mount on the host", || tree.0.join("from-pod/x").exists().then_some(()));
    node.kubectl(&["delete", "pod", "travel"]).ok();

    // A tree that is nobody's to share: nothing would travel, and that is said.
    let alone = node.path("alone");
    fs::create_dir(&alone).unwrap();
    mount_bind(&alone, &alone).unwrap();
    mount_change(&alone, MountPropagationFlags::PRIVATE).unwrap();
    let volumes = json!([{"name": "v", "hostPath": {"path": alone.display().to_string()}}]);
    let mount = json!([{"name": "v", "mountPath": "/v", "mountPropagation": "HostToContainer"}]);
    node.apply(&pod("alone", &image, SLEEP, &volumes, &mount).to_string());
    node.wait_for("pod/alone", "{.status.containerStatuses[0].state.waiting.reason}", "CreateContainerError");
    let message = node.field("pod/alone", "{.status.containerStatuses[0].state.waiting.message}");
    assert!(message.contains("but it is not a shared or slave mount"), "{message}");
    node.kubectl(&["delete", "pod", "alone"]).ok();
    unmount(&alone, UnmountFlags::DETACH).unwrap();
}

#[test]
fn img_87_env_54_mounts_onto_what_a_hostile_image_has_there() {
    let (registry, node) = (Registry::start(), Node::start());
    let links = tar_with(&[
        ("real", Directory, "", (0, 0)),
        ("absolute", Symlink, "/real", (0, 0)),
        ("climbing", Symlink, "../../../../../../../../../../real", (0, 0)),
        ("loop", Symlink, "loop", (0, 0)),
        ("file-link", Symlink, "/etc/passwd", (0, 0)),
    ]);
    let layers = [Layer::gzip(&busybox_layer()), Layer::plain(&links)];
    let hostile = registry.push("hostile:1", &TestImage::of(&layers, &json!({})));
    let volumes = json!([
        {"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {}}, {"name": "map", "configMap": {"name": "map"}},
        {"name": "image", "image": {"reference": hostile}},
    ]);
    node.apply(&config_map("map", &json!({"k": "mine"})).to_string());
    // Over a link, over a file, one inside the other whatever their order, an image's directory and its link.
    let mounts = json!([
        {"name": "w", "mountPath": "/v/inner/deep"}, {"name": "v", "mountPath": "/v"},
        {"name": "v", "mountPath": "/absolute"}, {"name": "w", "mountPath": "/climbing/below"},
        {"name": "map", "mountPath": "/file-link", "subPath": "k"},
        {"name": "image", "mountPath": "/image", "subPath": "climbing"},
    ]);
    let script = "touch /absolute/a /climbing/below/b; ls /v /v/inner/deep; cat /etc/passwd; mount | grep -c ' on /real'; ls -A /image | wc -l";
    node.apply(&pod("p", &hostile, script, &volumes, &mounts).to_string());
    node.wait_for("pod/p", "{.status.phase}", "Succeeded");
    let log = node.kubectl(&["logs", "p"]).ok();
    assert_eq!(
        log.split_whitespace().collect::<Vec<_>>(),
        ["/v:", "a", "below", "inner", "/v/inner/deep:", "b", "mine2", "0"],
        "{log}"
    );
    let looped = json!([{"name": "v", "mountPath": "/loop/x"}]);
    node.apply(&pod("loop", &hostile, "true", &volumes, &looped).to_string());
    node.wait_for("pod/loop", "{.status.phase}", "Failed");
    let directory = json!([{"name": "v", "mountPath": "/etc/passwd"}]);
    node.apply(&pod("over", &hostile, "true", &volumes, &directory).to_string());
    node.wait_for("pod/over", "{.status.phase}", "Failed");
}
