//! Volumes of every type in real containers: what is in them, how it follows the API, what is refused and how, and
//! what hostile pods make of them.

use std::{
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink},
    time::{Duration, Instant},
};

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
use serde_json::{Value, json};

use crate::fixture::{Layer, Node, Registry, TestImage, busybox_layer, eventually, tar_with};

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

/// Mounts below the node's directory that speak of a pod's volumes.
fn mounts(node: &Node, part: &str) -> usize {
    let data = node.path("data").display().to_string();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().filter(|line| line.contains(&data) && line.contains(part)).count()
}

#[test]
fn env_24_26_46_47_49_50_what_is_in_a_volume() {
    let (registry, node) = (Registry::start(), Node::start());
    let image = image(&registry);
    let volumes = json!([
        {"name": "disk", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "2Mi"}},
        {"name": "limited", "emptyDir": {"medium": "Memory"}},
        {"name": "map", "configMap": {"name": "map", "defaultMode": 0o640, "items": [
            {"key": "a", "path": "deep/a", "mode": 0o400}, {"key": "bytes", "path": "bytes"}]}},
        {"name": "secret", "secret": {"secretName": "secret"}},
        {"name": "none", "secret": {"secretName": "not-there", "optional": true}},
        {"name": "down", "downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "one", "mode": 0o400, "fieldRef": {"fieldPath": "metadata.annotations['note']"}},
            {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
            {"path": "memory", "resourceFieldRef": {"containerName": "c", "resource": "limits.memory", "divisor": "1Mi"}}]}},
        {"name": "all", "projected": {"sources": [
            {"configMap": {"name": "map", "items": [{"key": "a", "path": "from/map"}]}},
            {"secret": {"name": "secret"}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
            {"serviceAccountToken": {"path": "token", "audience": "somebody", "expirationSeconds": 600}}]}},
    ]);
    let names = ["disk", "memory", "limited", "map", "secret", "none", "down", "all"];
    let at: Vec<Value> =
        names.iter().map(|name| json!({"name": name, "mountPath": format!("/v/{name}")})).collect();
    let mut pod = pod("p", &image, SLEEP, &volumes, &json!(at));
    pod["metadata"]["labels"] = json!({"b": "2", "a": "1"});
    pod["metadata"]["annotations"] = json!({"note": "line\n\"quoted\""});
    pod["spec"]["securityContext"] = json!({"fsGroup": 2000, "runAsUser": 1000});
    pod["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "8Mi"}});
    let mut map = config_map("map", &json!({"a": "1"}));
    map["binaryData"] = json!({"bytes": "AP+A"});
    node.apply(&map.to_string());
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "secret"}, "stringData": {"key": "hush"}});
    node.apply(&secret.to_string());
    node.apply(&pod.to_string());
    ready(&node, "p");
    let says = |script: &str| sh(&node, "p", script).trim().to_owned();
    // ENV-46: everybody's, the group's; in memory as large as the least limit allows.
    assert_eq!(
        says("stat -c '%a %g' /v/disk /v/memory; touch /v/disk/x /v/memory/x; stat -c '%u %g' /v/disk/x"),
        "2777 2000\n2777 2000\n1000 2000"
    );
    let size = |at: &str| says(&format!("df -k {at} | tail -1 | awk '{{print $2}}'"));
    assert_eq!((size("/v/memory").as_str(), size("/v/limited").as_str()), ("2048", "8192"));
    // ENV-47, ENV-26: modes, with what the group needs.
    assert_eq!(
        says("stat -Lc '%a' /v/map/deep/a /v/map/bytes /v/down/one /v/down/name"),
        "440\n640\n440\n644"
    );
    assert_eq!(says("cat /v/map/deep/a /v/map/bytes | od -An -tx1").replace(' ', ""), "3100ff80");
    assert_eq!(
        says("cat /v/secret/key; stat -f -c %T /v/secret /v/all /v/down; ls -A /v/none"),
        "hushtmpfs\ntmpfs\ntmpfs"
    );
    assert!(says("echo no > /v/map/new || true; grep ' /v/map ' /proc/mounts").contains(" ro,"));
    // ENV-24.
    assert_eq!(says("cat /v/down/labels"), "a=\"1\"\nb=\"2\"");
    assert_eq!(says("cat /v/down/one; echo; cat /v/down/name /v/down/memory"), "line\n\"quoted\"\np8");
    // ENV-49, ENV-50: a token for this audience, this pod, ten minutes.
    assert_eq!(says("cat /v/all/from/map /v/all/key /v/all/namespace"), "1hushdefault");
    let token = says("cat /v/all/token");
    let claims = base64::Engine::decode(
        &base64::engine::general_purpose::URL_SAFE_NO_PAD,
        token.split('.').nth(1).unwrap(),
    );
    let claims: Value = serde_json::from_slice(&claims.unwrap()).unwrap();
    assert_eq!(claims["aud"], json!(["somebody"]));
    assert_eq!(claims["kubernetes.io"]["pod"]["name"], "p");
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 600);
    let api = "/var/run/secrets/kubernetes.io/serviceaccount";
    assert!(says(&format!("cat {api}/namespace; ls {api}")).starts_with("defaultca.crt"));
    // Nothing of it stays.
    assert_ne!(mounts(&node, "kubernetes.io~secret"), 0);
    node.kubectl(&["delete", "pod", "p"]).ok();
    eventually("the mounts to go", || (mounts(&node, "kubernetes.io~") == 0).then_some(()));
    eventually("the directory to go", || {
        fs::read_dir(node.path("data/kubelet/pods")).unwrap().next().is_none().then_some(())
    });
}

#[test]
fn env_25_47_content_follows_the_api() {
    let (registry, node) = (Registry::start(), Node::start());
    let volumes = json!([
        {"name": "map", "configMap": {"name": "map"}},
        {"name": "secret", "secret": {"secretName": "secret"}},
        {"name": "fixed", "configMap": {"name": "fixed"}},
        {"name": "maybe", "configMap": {"name": "maybe", "optional": true}},
        {"name": "down", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "all", "projected": {"sources": [{"configMap": {"name": "map", "items": [{"key": "a", "path": "x/a"}]}}]}},
    ]);
    let at = json!([
        {"name": "map", "mountPath": "/map"}, {"name": "secret", "mountPath": "/secret"},
        {"name": "fixed", "mountPath": "/fixed"}, {"name": "maybe", "mountPath": "/maybe"},
        {"name": "down", "mountPath": "/down"}, {"name": "all", "mountPath": "/all"},
        {"name": "map", "mountPath": "/sub/a", "subPath": "a"},
    ]);
    let mut pod = pod("p", &image(&registry), SLEEP, &volumes, &at);
    pod["metadata"]["labels"] = json!({"colour": "red"});
    // A hook that goes on: what a worker waits for keeps no file from being current.
    pod["spec"]["containers"][0]["lifecycle"] = json!({"postStart": {"exec": {"command": ["sh", "-c", "while ! test -e /tmp/go; do sleep 0.1; done"]}}});
    node.apply(&config_map("map", &json!({"a": "1", "b": "1"})).to_string());
    let mut fixed = config_map("fixed", &json!({"a": "1"}));
    fixed["immutable"] = json!(true);
    node.apply(&fixed.to_string());
    node.kubectl(&["create", "secret", "generic", "secret", "--from-literal=k=1"]).ok();
    node.apply(&pod.to_string());
    eventually("the container", || (node.kubectl(&["exec", "p", "--", "true"]).code == 0).then_some(()));
    let mut slowest = Duration::ZERO;
    let mut follows = |script: &str, says: &str| slowest = slowest.max(until(&node, "p", script, says));
    node.apply(&config_map("map", &json!({"a": "2", "c": "2"})).to_string());
    follows("cat /map/a /map/c /all/x/a; ls /map", "222a\nc");
    node.kubectl(&["patch", "secret", "secret", "-p", r#"{"stringData":{"k":"2"}}"#]).ok();
    follows("cat /secret/k", "2");
    node.kubectl(&["label", "pod", "p", "colour=blue", "--overwrite"]).ok();
    follows("cat /down/labels", "colour=\"blue\"");
    node.apply(&config_map("maybe", &json!({"k": "here"})).to_string());
    follows("cat /maybe/k", "here");
    node.kubectl(&["delete", "configmap", "maybe"]).ok();
    follows("ls -A /maybe | grep -v '^[.][.]' || true", "");
    // The target is two seconds; a loaded machine gets ten times that before it is called a failure.
    assert!(slowest < Duration::from_secs(20), "{slowest:?}");
    // What does not follow: a file that was mounted by itself, and what cannot change.
    assert_eq!(sh(&node, "p", "cat /sub/a /fixed/a"), "11");
    let said = node.with_manifest(&["apply"], &fixed.to_string().replace("\"1\"", "\"2\"")).fails();
    assert!(said.contains("field is immutable when `immutable` is set"), "{said}");
    // A ConfigMap that vanishes takes no files with it.
    node.kubectl(&["delete", "configmap", "map"]).ok();
    node.wait_for_event(
        "p",
        "FailedMount",
        "Warning MountVolume.SetUp failed for volume \"map\" : configmap \"map\" not found",
    );
    assert_eq!(sh(&node, "p", "touch /tmp/go; cat /map/a"), "2");
}

#[test]
fn env_48_what_is_missing_is_waited_for_and_what_is_not_done_is_refused() {
    let (registry, node) = (Registry::start(), Node::start());
    let image = image(&registry);
    let with = |name: &str, source: Value| {
        let mut volume = source;
        volume["name"] = json!("v");
        node.apply(
            &pod(name, &image, SLEEP, &json!([volume]), &json!([{"name": "v", "mountPath": "/v"}]))
                .to_string(),
        );
    };
    let refused = |name: &str, text: &str| {
        let event = format!("Warning MountVolume.SetUp failed for volume \"v\" : {text}");
        node.wait_for_event(name, "FailedMount", &event);
        assert_eq!(
            node.field(
                &format!("pod/{name}"),
                "{.status.phase} {.status.containerStatuses[0].state.waiting.reason}"
            ),
            "Pending ContainerCreating"
        );
    };
    let sources = [
        ("map", json!({"configMap": {"name": "m"}}), "configmap \"m\" not found"),
        ("secret", json!({"secret": {"secretName": "s"}}), "secret \"s\" not found"),
        (
            "projected",
            json!({"projected": {"sources": [{"secret": {"name": "s", "items": [{"key": "k", "path": "p"}]}}]}}),
            "secret \"s\" not found",
        ),
    ];
    for (name, source, _) in &sources {
        with(name, source.clone());
    }
    for (name, _, text) in &sources {
        refused(name, text);
    }
    // A key is as good as an object.
    with("key", json!({"configMap": {"name": "has", "items": [{"key": "z", "path": "z"}]}}));
    node.apply(&config_map("has", &json!({"a": "1"})).to_string());
    refused("key", "configmap references non-existent config key: z");
    with("secret-key", json!({"secret": {"secretName": "other", "items": [{"key": "z", "path": "z"}]}}));
    node.kubectl(&["create", "secret", "generic", "other", "--from-literal=a=1"]).ok();
    refused("secret-key", "references non-existent secret key: z");
    // By then attempts are seconds apart; the object itself brings the next one.
    let began = Instant::now();
    node.apply(&config_map("m", &json!({"k": "1"})).to_string());
    node.apply(&config_map("has", &json!({"z": "1"})).to_string());
    node.kubectl(&["create", "secret", "generic", "s", "--from-literal=k=1"]).ok();
    node.kubectl(&["patch", "secret", "other", "-p", r#"{"stringData":{"z":"1"}}"#]).ok();
    for name in ["map", "secret", "projected", "key", "secret-key"] {
        ready(&node, name);
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());

    let unsupported = [
        ("claim", json!({"persistentVolumeClaim": {"claimName": "c"}}), "persistentVolumeClaim"),
        ("nfs", json!({"nfs": {"server": "s", "path": "/p"}}), "nfs"),
        (
            "iscsi",
            json!({"iscsi": {"targetPortal": "1.2.3.4", "iqn": "iqn.2026-01.com.example:x", "lun": 0}}),
            "iscsi",
        ),
        ("csi", json!({"csi": {"driver": "d.example.com"}}), "csi"),
        (
            "ephemeral",
            json!({"ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}}}}}),
            "ephemeral",
        ),
        (
            "bundle",
            json!({"projected": {"sources": [{"clusterTrustBundle": {"name": "b", "path": "ca.pem"}}]}}),
            "clusterTrustBundle",
        ),
    ];
    for (name, source, _) in &unsupported {
        with(name, source.clone());
    }
    for (name, _, kind) in &unsupported {
        let events = eventually("the event", || {
            let events = node.events(name, "FailedMount");
            (!events.is_empty()).then_some(events)
        });
        let event = &events[0];
        let named = format!("Warning MountVolume.SetUp failed for volume \"v\" : ");
        assert!(event.starts_with(&named) && event.contains(&format!("of type \"{kind}\"")), "{event}");
        assert!(event.contains("not supported by this node: "), "{event}");
        assert_eq!(node.field(&format!("pod/{name}"), "{.status.phase}"), "Pending");
    }
}

#[test]
fn env_51_host_paths() {
    let (registry, node) = (Registry::start(), Node::start());
    let image = image(&registry);
    let host = node.path("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("file"), "content").unwrap();
    fs::write(host.join(std::ffi::OsStr::from_bytes(b"not-\xff-utf8")), "strange").unwrap();
    let at = |name: &str| host.join(name).display().to_string();
    let script =
        "cat /file; cat /dir/not-*; test -c /null && echo device; echo made > /created/x; echo made > /made";
    let volumes = json!([
        {"name": "file", "hostPath": {"path": at("file"), "type": "File"}},
        {"name": "dir", "hostPath": {"path": at(""), "type": "Directory"}},
        {"name": "null", "hostPath": {"path": "/dev/null", "type": "CharDevice"}},
        {"name": "created", "hostPath": {"path": at("created/deep"), "type": "DirectoryOrCreate"}},
        {"name": "made", "hostPath": {"path": at("made"), "type": "FileOrCreate"}},
    ]);
    let mounts: Vec<Value> = ["file", "dir", "null", "created", "made"]
        .iter()
        .map(|name| json!({"name": name, "mountPath": format!("/{name}"), "readOnly": *name == "file"}))
        .collect();
    node.apply(&pod("good", &image, script, &volumes, &json!(mounts)).to_string());
    node.wait_for("pod/good", "{.status.phase}", "Succeeded");
    assert_eq!(node.kubectl(&["logs", "good"]).ok(), "contentstrangedevice\n");
    assert_eq!(fs::read_to_string(host.join("created/deep/x")).unwrap(), "made\n");
    assert_eq!(fs::read_to_string(host.join("made")).unwrap(), "made\n");
    for (name, path, kind, what) in [
        ("directory", at("file"), "Directory", "directory"),
        ("file", at("created"), "File", "file"),
        ("socket", at("file"), "Socket", "socket file"),
        ("character", at("file"), "CharDevice", "character device"),
        ("block", "/dev/null".to_owned(), "BlockDevice", "block device"),
        ("missing", at("nothing"), "Directory", "directory"),
    ] {
        let volume = json!([{"name": "v", "hostPath": {"path": path, "type": kind}}]);
        node.apply(
            &pod(name, &image, SLEEP, &volume, &json!([{"name": "v", "mountPath": "/v"}])).to_string(),
        );
        let text = format!(
            "Warning MountVolume.SetUp failed for volume \"v\" : hostPath type check failed: {path} is not a {what}"
        );
        node.wait_for_event(name, "FailedMount", &text);
    }
    let escaping = json!([{"name": "v", "hostPath": {"path": "/tmp/../etc"}}]);
    let said = node
        .with_manifest(&["create"], &pod("up", &image, "true", &escaping, &json!([])).to_string())
        .fails();
    assert!(said.contains("must not contain '..'"), "{said}");
    // The files of a host are not the pod's to take along.
    node.kubectl(&["delete", "pod", "good"]).ok();
    assert!(host.join("file").exists() && host.join("created/deep/x").exists());
}

#[test]
fn env_52_53_sub_paths_stay_inside() {
    let (registry, node) = (Registry::start(), Node::start());
    let image = image(&registry);
    // An init container prepares links out of the volume; then a companion swaps a directory and such a link all the
    // time while another container, which mounts it, starts again and again.
    let volumes = json!([{"name": "v", "emptyDir": {}}]);
    let prepare = "ln -s / /v/root; ln -s ../../../../../../../.. /v/up; mkdir -p /v/swap/etc; echo inside > /v/swap/etc/hostname";
    let swap = "while :; do mv /v/swap /v/away; ln -s / /v/swap; rm /v/swap; mv /v/away /v/swap; done";
    let look = "cat /m/hostname; ls /up; echo $(ls /made)";
    let mut pod = pod(
        "p",
        &image,
        look,
        &volumes,
        &json!([
            {"name": "v", "mountPath": "/m", "subPath": "swap/etc"},
            {"name": "v", "mountPath": "/up", "subPath": "up/root/new"},
            {"name": "v", "mountPath": "/made", "subPathExpr": "$(WHO)/logs"},
        ]),
    );
    let spec = &mut pod["spec"];
    spec["restartPolicy"] = json!("Always");
    spec["containers"][0]["env"] = json!([{"name": "WHO", "value": "me"}]);
    spec["initContainers"] = json!([{"name": "prepare", "image": image, "command": ["sh", "-c", prepare],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]);
    let all = spec["containers"].as_array_mut().unwrap();
    all.push(json!({"name": "swapper", "image": image, "command": ["sh", "-c", swap],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}]}));
    node.apply(&pod.to_string());
    let hostname = fs::read_to_string("/etc/hostname").unwrap_or_default();
    eventually("a few starts", || {
        let logs = node.kubectl(&["logs", "p", "-c", "c", "--previous"]).out;
        assert!(hostname.trim().is_empty() || !logs.contains(hostname.trim()), "{logs}");
        let count = node.field("pod/p", "{.status.containerStatuses[?(@.name==\"c\")].restartCount}");
        (count.parse().unwrap_or(0) >= 2).then_some(())
    });
    let volume = fs::read_dir(node.path("data/kubelet/pods")).unwrap().next().unwrap().unwrap().path();
    let volume = volume.join("volumes/kubernetes.io~empty-dir/v");
    assert!(volume.join("me/logs").is_dir() && volume.join("new").is_dir());
    assert!(!std::path::Path::new("/new").exists());

    let mut bad = |name: &str, mount: Value| {
        let mut mount = mount;
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
            rustix::mount::MountFlags::empty(),
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
        mode.map(|mode| mount["recursiveReadOnly"] = json!(mode));
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
        // What is at the end of an event's message does not count for those who compare.
        node.wait_for_event(name, "Evicted", &format!("Warning {message}"));
    }
    assert_eq!(node.field("pod/modest", "{.status.phase}"), "Running");
}

#[test]
fn img_87_env_54_mounts_onto_what_a_hostile_image_has_there() {
    let (registry, node) = (Registry::start(), Node::start());
    use tar::EntryType::{Directory, Symlink};
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
