//! The same conformance checks over Debian's containerd: what both pass is what "CRI" means here. What containerd 1.6
//! does differently is skipped by name, with the reason.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use sampan_oci::Digest;
use serde_json::json;

use super::conformance::{
    Check, Target, environment, every_check, execs, lifecycle, listing, security, streams,
};
use super::remains;

/// What containerd 1.6 does not do as the protocol of today says, and why it is no failure of it.
const SKIPPED: &[(&str, &str)] = &[
    ("the_pods_stop_signal_is_used", "CRI knows stop_signal since Kubernetes 1.33"),
    ("an_image_can_be_a_volume", "image volumes came with containerd 2.1"),
    ("events_tell_of_every_change", "GetContainerEvents came with containerd 1.7"),
    ("version_status_and_configuration", "the list of handlers came with containerd 2.0"),
    ("lists_can_be_filtered", "the streamed lists came with Kubernetes 1.36"),
    ("images_are_named_alike_everywhere", "a container's status has no image_id yet"),
    ("env_03_user_group_and_directory", "a container's status has no user yet"),
    ("stats_count_what_runs", "a writable layer has no statistics until they are collected"),
    ("hook_06_exec_collects_both_streams", "16 MiB of output do not fit into its answers"),
    ("a_pod_that_is_gone_can_be_stopped", "StopPodSandbox does not find what is gone before containerd 1.7"),
    ("a_pod_lives_and_dies", "its refusals have the code Unknown"),
    ("nothing_is_left_of_a_refused_request", "its refusals have the code Unknown"),
    ("pod_54_exec_over_websocket", "streaming is SPDY only before containerd 2.0"),
    ("a_terminal_has_the_clients_size", "streaming is SPDY only before containerd 2.0"),
    ("attach_joins_the_main_process", "streaming is SPDY only before containerd 2.0"),
    ("host_ports_lead_into_the_pod", "the portmap plugin gives a port that is taken to whoever comes last"),
    ("ports_are_forwarded", "streaming is SPDY only before containerd 2.0"),
    ("stdin_is_closed_by_halves", "streaming is SPDY only before containerd 2.0"),
    ("a_lost_terminal_hangs_up", "streaming is SPDY only before containerd 2.0"),
];

struct Peer {
    process: Child,
    dir: PathBuf,
    bridge: String,
}

/// An archive as `docker save` writes it: one layer with this executable under all its names.
fn archive(name: &str, command: &[&str]) -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind, mode, content: &[u8], link: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        match link {
            "" => layer.append_data(&mut header, path, content).unwrap(),
            link => layer.append_link(&mut header, path, link).unwrap(),
        }
    };
    use tar::EntryType::{Directory, Regular, Symlink};
    for (dir, mode) in [
        ("bin/", 0o755),
        ("dev/", 0o755),
        ("etc/", 0o755),
        ("home/", 0o755),
        ("proc/", 0o755),
        ("root/", 0o700),
        ("sys/", 0o755),
        ("tmp/", 0o1777),
        ("var/", 0o755),
        ("run/", 0o755),
    ] {
        add(dir, Directory, mode, b"", "");
    }
    let passwd = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n";
    add("etc/passwd", Regular, 0o644, passwd, "");
    add("etc/group", Regular, 0o644, b"root:x:0:\nnogroup:x:65534:\n", "");
    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    add("bin/sampan", Regular, 0o755, &program, "");
    for applet in sampan_toolbox::Applet::names().chain(["probe"]) {
        add(&format!("bin/{applet}"), Symlink, 0o777, b"", "sampan");
    }
    let layer = layer.into_inner().unwrap();
    let config = json!({
        "architecture": match std::env::consts::ARCH { "aarch64" => "arm64", _ => "amd64" },
        "os": "linux",
        "config": {"Cmd": command, "Env": ["PATH=/bin:/usr/bin:/sbin:/usr/sbin"]},
        "rootfs": {"type": "layers", "diff_ids": [Digest::sha256(&layer).to_string()]},
    })
    .to_string();
    let manifest =
        json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]).to_string();
    let mut all = tar::Builder::new(Vec::new());
    for (path, content) in [
        ("layer.tar", &layer[..]),
        ("config.json", config.as_bytes()),
        ("manifest.json", manifest.as_bytes()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        all.append_data(&mut header, path, content).unwrap();
    }
    all.into_inner().unwrap()
}

impl Peer {
    async fn start() -> (Self, Target) {
        let number = rand::random::<u32>();
        let (dir, bridge) = remains::names();
        std::fs::create_dir_all(dir.join("cni")).unwrap();
        let at = |name: &str| dir.join(name).display().to_string();
        let network = json!({"cniVersion": "0.4.0", "name": "sp", "plugins": [
            {"type": "bridge", "bridge": bridge, "isGateway": true, "ipam": {
                "type": "host-local", "dataDir": at("ipam"), "routes": [{"dst": "0.0.0.0/0"}],
                "ranges": [[{"subnet": format!("10.{}.{}.0/24", 224 + (number >> 8) % 16, number & 0xff)}]],
            }},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ]});
        std::fs::write(dir.join("cni/10.conflist"), network.to_string()).unwrap();
        let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n[grpc]\naddress = {:?}\n[{cri}]\nsandbox_image = \"sampan.local/pause:1\"\nrestrict_oom_score_adj = true\nnetns_mounts_under_state_dir = true\nstream_server_address = \"127.0.0.1\"\n[{cri}.cni]\nbin_dir = \"/usr/lib/cni\"\nconf_dir = {:?}\n[{cri}.containerd]\ndefault_runtime_name = \"runc\"\n[{cri}.containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n[{cri}.containerd.runtimes.runc.options]\nRoot = {:?}\n",
            at("root"),
            at("state"),
            at("c.sock"),
            at("cni"),
            at("runc"),
        );
        std::fs::write(dir.join("config.toml"), config).unwrap();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let process = Command::new("containerd")
            .arg("--config")
            .arg(dir.join("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let peer = Self { process, dir: dir.clone(), bridge };
        let endpoint = format!("unix://{}", dir.join("c.sock").display());
        let client = loop {
            if let Ok(client) = sampan_cri::client::connect(&endpoint).await {
                break client;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        peer.import("sampan.local/pause:1", &["probe", "polite"]);
        peer.import("sampan.local/toolbox:latest", &["true"]);
        let target = Target {
            client,
            image: "sampan.local/toolbox:latest".to_owned(),
            logs: dir.join("logs"),
            cgroup_parent: remains::cgroup(&dir),
            has_network: true,
            handler: String::new(),
        };
        (peer, target)
    }

    fn import(&self, name: &str, command: &[&str]) {
        let file = self.dir.join("image.tar");
        std::fs::write(&file, archive(name, command)).unwrap();
        let imported = Command::new("ctr")
            .arg("--address")
            .arg(self.dir.join("c.sock"))
            .args(["--namespace", "k8s.io", "images", "import"])
            .arg(&file)
            .output()
            .unwrap();
        assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
        let _ = std::fs::remove_file(file);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        remains::remove(&self.dir, Some(&self.bridge), &remains::cgroup(&self.dir));
    }
}

/// How a check ended, in words; none when it passed.
async fn outcome(check: impl Future<Output = Check>) -> Option<String> {
    let limited = tokio::time::timeout(Duration::from_secs(60), check);
    match AssertUnwindSafe(limited).catch_unwind().await {
        Ok(Ok(Ok(()))) => None,
        Ok(Ok(Err(status))) => Some(format!("{:?} {}", status.code(), status.message())),
        Ok(Err(_)) => Some("took more than a minute".to_owned()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Some(
                text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                    .unwrap_or_default(),
            )
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rtc_17_containerd_passes_what_the_embedded_runtime_passes() {
    if ["/usr/bin/containerd", "/usr/lib/cni/bridge"].iter().any(|path| !Path::new(path).exists()) {
        println!("containerd or its CNI plugins are not here: `cargo xtask setup` installs them");
        return;
    }
    let (peer, target) = Peer::start().await;
    let target = Arc::new(target);
    // Each future is made and boxed in a function of its own: all of them in one would overflow the stack.
    type Run = fn(Arc<Target>) -> BoxFuture<'static, Check>;
    macro_rules! checks {
        ($($start:ident: $($module:ident::$check:ident),* ;)*) => {
            [$($((stringify!($check), (|target| async move { $module::$check(&target).await }.boxed()) as Run)),*),*]
        };
    }
    let checks = every_check!(checks);
    let mut failed = BTreeMap::new();
    for (name, check) in checks {
        match SKIPPED.iter().find(|(skipped, _)| *skipped == name) {
            Some((_, why)) => println!("skipped {name}: {why}"),
            None => {
                if let Some(why) = outcome(check(Arc::clone(&target))).await {
                    failed.insert(name, why);
                }
            }
        }
    }
    target.remove_everything().await;
    drop(peer);
    assert!(failed.is_empty(), "{failed:#?}");
}
