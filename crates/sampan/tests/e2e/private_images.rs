//! The documentation's use cases of images, with a real registry behind TLS and htpasswd: public images, private
//! ones for all pods of a node, stricter access, several tenants (docs/images.md).

use serde_json::json;

use crate::fixture::{Node, Registry, TestImage, eventually};

/// A pod that only waits. `more` are further lines of its spec.
fn pod(name: &str, image: &str, policy: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: c, image: '{image}', imagePullPolicy: {policy}, command: [sleep, \"600\"]}}\n{more}---\n"
    )
}

const SECRET: &str = "  imagePullSecrets: [{name: registry}]\n";
const REASON: &str = "{.status.containerStatuses[0].state.waiting.reason}";
const MESSAGE: &str = "{.status.containerStatuses[0].state.waiting.message}";

fn secret(node: &Node, registry: &Registry, namespace: &str, user: &str, password: &str) {
    let (server, user, password) =
        (registry.host(), format!("--docker-username={user}"), format!("--docker-password={password}"));
    let server = format!("--docker-server={server}");
    let args =
        ["-n", namespace, "create", "secret", "docker-registry", "registry", &server, &user, &password];
    node.kubectl(&args).ok();
}

#[test]
fn img_56_img_64_img_76_img_80_img_81_img_82_stricter_access_with_secrets() {
    let registry = Registry::start_private();
    let image = registry.push("team/app:1", &TestImage::busybox(&json!({})));
    let hosts = format!("--registry-hosts-dirs={}", registry.hosts_dir().display());
    let mut node = Node::start_with(&[&hosts]);
    // Without a credential: refused, with the reason and the fix.
    node.apply(&pod("first", &image, "IfNotPresent", SECRET));
    node.wait_for("pod/first", REASON, "ImagePullBackOff");
    let message = node.field("pod/first", MESSAGE);
    assert!(
        message.contains("401") && message.contains("Secret default/registry does not exist"),
        "{message}"
    );
    let said = node.explain("default/first");
    let fix = format!("create secret docker-registry registry --docker-server={}", registry.host());
    assert!(said.contains("cannot be pulled") && said.contains(&fix), "{said}");
    // The Secret comes: no back-off is waited for (the next attempt would be many seconds away).
    secret(&node, &registry, "default", "alice", "s3cret-1");
    let began = std::time::Instant::now();
    node.wait_for("pod/first", "{.status.phase}", "Running");
    assert!(began.elapsed().as_secs() < 8, "{:?}", began.elapsed());
    assert_eq!(
        node.explain("default/first"),
        format!("pod default/first is Running, on node {}\nnothing keeps it from running\n", node.name())
    );
    // The layers are here, and still not for everybody.
    node.apply(&[pod("other", &image, "IfNotPresent", ""), pod("never", &image, "Never", "")].concat());
    node.wait_for("pod/never", REASON, "ErrImageNeverPull");
    node.wait_for("pod/other", REASON, "ImagePullBackOff");
    // With the Secret `Never` works, and nobody asks the registry.
    let asked = registry.log().matches("/v2/team/app/").count();
    node.apply(&pod("entitled", &image, "Never", SECRET));
    node.wait_for("pod/entitled", "{.status.phase}", "Running");
    assert_eq!(registry.log().matches("/v2/team/app/").count(), asked);
    // All of it survives a crash of the daemon.
    node.kill_9();
    node.launch();
    node.apply(&[pod("later", &image, "Never", ""), pod("after", &image, "IfNotPresent", SECRET)].concat());
    node.wait_for("pod/after", "{.status.phase}", "Running");
    node.wait_for("pod/later", REASON, "ErrImageNeverPull");
    let log = node.log();
    assert!(!log.contains("s3cret"), "a secret in the log");
}

#[test]
fn img_58_img_59_img_79_private_images_for_all_pods_of_the_node() {
    let registry = Registry::start_private();
    let image = registry.push("all/app:1", &TestImage::busybox(&json!({})));
    let hosts = format!("--registry-hosts-dirs={}", registry.hosts_dir().display());
    let node = Node::start_with(&["--stop-pods=true", &hosts]);
    node.apply(&pod("early", &image, "IfNotPresent", ""));
    node.wait_for("pod/early", REASON, "ImagePullBackOff");
    // As `docker login` writes it; no restart, and the waiting pod goes on by itself.
    let auth = "Ym9iOnMzY3JldC0y"; // bob:s3cret-2
    let config = json!({"auths": {registry.host(): {"auth": auth}}});
    std::fs::write(node.path("data/kubelet/config.json"), config.to_string()).unwrap();
    node.wait_for("pod/early", "{.status.phase}", "Running");
    node.apply(&pod("more", &image, "Always", ""));
    node.wait_for("pod/more", "{.status.phase}", "Running");
    // What the node pulled with its own credentials is for all pods, with or without them.
    std::fs::remove_file(node.path("data/kubelet/config.json")).unwrap();
    node.apply(&pod("without", &image, "IfNotPresent", ""));
    node.wait_for("pod/without", "{.status.phase}", "Running");
}

#[test]
fn img_50_img_54_img_68_img_72_tenants_with_always_pull_images_and_pinned_digests() {
    let registry = Registry::start_private();
    let image = registry.push("shared/app:1", &TestImage::busybox(&json!({})));
    let hosts = format!("--registry-hosts-dirs={}", registry.hosts_dir().display());
    let plugins = "--enable-admission-plugins=AlwaysPullImages";
    let mut node = Node::start_with(&[plugins, &hosts]);
    for tenant in ["red", "blue"] {
        node.kubectl(&["create", "namespace", tenant]).ok();
    }
    secret(&node, &registry, "red", "alice", "s3cret-1");
    // Every pod of the namespace: the account names the Secret.
    let patch = r#"{"imagePullSecrets":[{"name":"registry"}]}"#;
    eventually("the account", || {
        (node.kubectl(&["-n", "red", "patch", "serviceaccount", "default", "-p", patch]).code == 0)
            .then_some(())
    });
    eventually("the account", || {
        (node.kubectl(&["-n", "blue", "get", "serviceaccount", "default"]).code == 0).then_some(())
    });
    let manifest = pod("app", &image, "IfNotPresent", "");
    node.with_manifest(&["-n", "red", "apply"], &manifest).ok();
    node.kubectl(&["-n", "red", "wait", "--for=condition=Ready", "pod/app", "--timeout=60s"]).ok();
    let policy = "jsonpath={.spec.containers[0].imagePullPolicy} {.spec.imagePullSecrets[0].name}";
    assert_eq!(node.kubectl(&["-n", "red", "get", "pod", "app", "-o", policy]).ok(), "Always registry");
    // The other tenant has nothing to show, whatever it asks for.
    node.with_manifest(&["-n", "blue", "apply"], &pod("app", &image, "Never", "")).ok();
    eventually("the refusal", || {
        let reason =
            node.kubectl(&["-n", "blue", "get", "pod", "app", "-o", &format!("jsonpath={REASON}")]).out;
        (reason == "ImagePullBackOff").then_some(())
    });
    // Our own plugin: what was created is what runs, also after the tag has moved.
    node.kill_9();
    let node = {
        let mut args = node;
        args.replace_option(plugins, "--enable-admission-plugins=DigestPinning");
        args.launch();
        args
    };
    node.with_manifest(&["-n", "red", "apply"], &pod("pinned", &image, "IfNotPresent", "")).ok();
    let pinned = node
        .kubectl(&["-n", "red", "get", "pod", "pinned", "-o", "jsonpath={.spec.containers[0].image}"])
        .ok();
    assert!(pinned.starts_with(&format!("{image}@sha256:")), "{pinned}");
    node.kubectl(&["-n", "red", "wait", "--for=condition=Ready", "pod/pinned", "--timeout=60s"]).ok();
    let said =
        node.with_manifest(&["-n", "blue", "create"], &pod("pinned", &image, "IfNotPresent", "")).fails();
    assert!(said.contains("cannot be pinned to a digest") && said.contains("401"), "{said}");
}

#[test]
fn img_87_img_88_an_image_as_a_volume() {
    let registry = Registry::start();
    let image = registry.push("volume/app:1", &TestImage::busybox(&json!({})));
    let node = Node::start();
    let manifest = |name: &str, sub_path: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  volumes: [{{name: v, image: {{reference: '{image}'}}}}, {{name: unused, image: {{reference: 127.0.0.1:1/none}}}}]\n  containers:\n  - {{name: c, image: '{image}', command: [sh, -c, 'cat /v/passwd | head -1; touch /v/x'], volumeMounts: [{{name: v, mountPath: /v, subPath: {sub_path}}}]}}\n"
        )
    };
    node.apply(&manifest("good", "etc"));
    node.wait_for("pod/good", "{.status.phase}", "Failed");
    let log = node.kubectl(&["logs", "good"]).ok();
    assert!(log.starts_with("root:x:0:0") && log.contains("Read-only"), "{log}");
    node.apply(&manifest("bad", "nowhere"));
    node.wait_for("pod/bad", REASON, "CreateContainerError");
}
