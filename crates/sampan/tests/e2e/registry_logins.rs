//! Credentials from elsewhere than Secrets: plugins of the node, and what belongs to mirrors.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::{Value, json};

use crate::fixture::{Node, Registry, TestImage};

const REASON: &str = "{.status.containerStatuses[0].state.waiting.reason}";
const MESSAGE: &str = "{.status.containerStatuses[0].state.waiting.message}";

fn pod(name: &str, image: &str, secrets: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  imagePullSecrets: [{secrets}]\n  containers:\n  - {{name: c, image: '{image}', command: ['true']}}\n---\n"
    )
}

/// A plugin that keeps its last request beside it and shows alice's password.
fn plugin(node: &Node, name: &str, registry: &Registry, password: &str) {
    let auth = json!({registry.host(): {"username": "alice", "password": password}});
    let answer = json!({"kind": "CredentialProviderResponse", "cacheKeyType": "Image", "cacheDuration": "0s",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "auth": auth});
    let path = node.path("plugins").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, format!("#!/bin/sh\ncat > $0.request\necho '{answer}'\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn request(node: &Node, name: &str) -> Value {
    serde_json::from_slice(&fs::read(node.path("plugins").join(format!("{name}.request"))).unwrap()).unwrap()
}

#[test]
fn img_74_plugins_give_what_private_images_need() {
    let registry = Registry::start_private();
    let plain = registry.push("team/app:1", &TestImage::busybox(&json!({})));
    let tenant = registry.push("tenant/app:1", &TestImage::busybox(&json!({})));
    let hosts = registry.hosts_dir();
    let mut node = Node::prepare(&["--stop-pods=true", "--registry-hosts-dirs", hosts.to_str().unwrap()]);
    plugin(&node, "plain", &registry, "s3cret-1");
    plugin(&node, "tokened", &registry, "s3cret-1");
    let provider = |name: &str, path: &str| {
        json!({"name": name, "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            "matchImages": [format!("{}/{path}", registry.host())], "defaultCacheDuration": "0s"})
    };
    let mut tokened = provider("tokened", "tenant");
    tokened["tokenAttributes"] = json!({"serviceAccountTokenAudience": "my-registry",
        "cacheType": "ServiceAccount", "requireServiceAccount": true});
    let config = json!({"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig",
        "providers": [provider("plain", "team"), tokened]});
    fs::write(node.path("plugins.yaml"), config.to_string()).unwrap();
    for (option, file) in [("config", "plugins.yaml"), ("bin-dir", "plugins")] {
        let path = node.path(file).display().to_string();
        node.add_option(&format!("--image-credential-provider-{option}"), &path);
    }
    node.launch();
    node.apply(&[pod("plain", &plain, ""), pod("tenant", &tenant, "")].concat());
    for name in ["plain", "tenant"] {
        node.wait_for(&format!("pod/{name}"), "{.status.phase}", "Succeeded");
    }
    let asked = request(&node, "plain");
    assert_eq!(asked["image"], format!("{}/team/app", registry.host()));
    assert_eq!(asked["kind"], "CredentialProviderRequest");
    assert!(asked.get("serviceAccountToken").is_none(), "no token was wanted");
    let asked = request(&node, "tokened");
    let token = asked["serviceAccountToken"].as_str().unwrap();
    let claims = base64::Engine::decode(
        &base64::engine::general_purpose::URL_SAFE_NO_PAD,
        token.split('.').nth(1).unwrap(),
    );
    let claims: Value = serde_json::from_slice(&claims.unwrap()).unwrap();
    assert_eq!(claims["aud"], json!(["my-registry"]));
    assert_eq!(claims["sub"], "system:serviceaccount:default:default");
    // A plugin with a wrong answer is named with it, its password is not; one that fails is no credential at all.
    plugin(&node, "plain", &registry, "wr0ng");
    node.apply(&pod("refused", &registry.name("team/other:1"), ""));
    node.wait_for("pod/refused", REASON, "ImagePullBackOff");
    let message = node.field("pod/refused", MESSAGE);
    let tried = format!("(tried: plugin plain for {})", registry.host());
    assert!(message.contains("401") && message.contains(&tried), "{message}");
    fs::write(node.path("plugins/plain"), "#!/bin/sh\necho broken >&2; exit 3\n").unwrap();
    node.apply(&pod("nobody", &registry.name("team/third:1"), ""));
    node.wait_for("pod/nobody", REASON, "ImagePullBackOff");
    let message = node.field("pod/nobody", MESSAGE);
    assert!(message.contains("401") && message.contains("(tried: anonymous)"), "{message}");
    let log = node.log();
    assert!(log.contains("broken") && !log.contains("s3cret") && !log.contains("wr0ng"), "{log}");
}

#[test]
fn a_mirror_is_asked_with_its_own_credentials() {
    let registry = Registry::start_private();
    registry.push("air/app:1", &TestImage::busybox(&json!({})));
    let hosts = registry.hosts_dir();
    let own = fs::read_to_string(hosts.join(registry.host()).join("hosts.toml")).unwrap();
    let at = hosts.join("registry.example");
    fs::create_dir(&at).unwrap();
    fs::write(
        at.join("hosts.toml"),
        own.replacen(&format!("https://{}", registry.host()), "http://127.0.0.1:1", 1),
    )
    .unwrap();
    let node = Node::start_with(&["--stop-pods=true", "--registry-hosts-dirs", hosts.to_str().unwrap()]);
    for (name, server) in [("of-mirror", registry.host()), ("of-registry", "registry.example".to_owned())] {
        node.kubectl(&[
            "create",
            "secret",
            "docker-registry",
            name,
            &format!("--docker-server={server}"),
            "--docker-username=alice",
            "--docker-password=s3cret-1",
        ])
        .ok();
    }
    let image = "registry.example/air/app:1";
    // The registry's own credentials, though they happen to be right, are not for its mirror.
    node.apply(&pod("wrong", image, "{name: of-registry}"));
    node.wait_for("pod/wrong", REASON, "ImagePullBackOff");
    let message = node.field("pod/wrong", MESSAGE);
    assert!(message.contains(&registry.host()) && message.contains("401"), "{message}");
    node.apply(&pod("right", image, "{name: of-mirror}"));
    node.wait_for("pod/right", "{.status.phase}", "Succeeded");
    // What came from there is for those who can show the same.
    node.apply(&pod("never", image, "").replace("command", "imagePullPolicy: Never, command"));
    node.wait_for("pod/never", REASON, "ErrImageNeverPull");
    assert!(!node.log().contains("s3cret"));
}
