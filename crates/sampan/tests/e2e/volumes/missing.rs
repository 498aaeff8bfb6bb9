//! Volumes that cannot be made: what is waited for, what is refused, and in which words.

use std::{
    fs,
    os::unix::ffi::OsStrExt,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{SLEEP, config_map, image, pod, ready};
use crate::fixture::{Node, Registry, eventually};

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
            "certificate",
            json!({"projected": {"sources": [{"podCertificate": {"signerName": "example.com/s",
                "keyType": "ED25519", "credentialBundlePath": "all.pem"}}]}}),
            "podCertificate",
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
        let named = "Warning MountVolume.SetUp failed for volume \"v\" : ";
        assert!(event.starts_with(named) && event.contains(&format!("of type \"{kind}\"")), "{event}");
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
