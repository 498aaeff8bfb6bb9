//! CNI with Debian's plugins, and with some that do not do what they should.

use std::{collections::HashSet, fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use sampan_network::{Cni, CniPod, NetworkStatus, SandboxNetwork};

use crate::fixture::{Fixture, greet_from, serve};

struct Directories {
    dir: tempfile::TempDir,
    bridge: String,
    subnet: String,
}

impl Directories {
    /// A range and a bridge of the plugins' own.
    fn new(net: &Fixture) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("conf")).unwrap();
        fs::create_dir_all(dir.path().join("bin")).unwrap();
        let bridge = net.config.bridge.replace("smpt-", "smptc");
        // Not the fixture's ranges: with br_netfilter bridged packets pass its rules too.
        let [first, second, third, _] = net.config.service_cidr.network().octets();
        Self { dir, bridge, subnet: format!("{first}.{}.{third}.0/24", second + 16) }
    }

    fn cni(&self) -> Cni {
        let path = |name: &str| self.dir.path().join(name);
        Cni::new(path("conf"), vec![path("bin"), "/usr/lib/cni".into()], path("state")).unwrap()
    }

    fn configure(&self, more: &str) {
        let data = self.dir.path().join("ipam").display().to_string();
        let (bridge, subnet) = (&self.bridge, &self.subnet);
        let text = format!(
            r#"{{"cniVersion": "1.0.0", "name": "{bridge}", "plugins": [
                {{"type": "bridge", "bridge": "{bridge}", "isGateway": true,
                  "ipam": {{"type": "host-local", "dataDir": "{data}", "ranges": [[{{"subnet": "{subnet}"}}]],
                            "routes": [{{"dst": "0.0.0.0/0"}}]}}}}{more}]}}"#
        );
        fs::write(self.dir.path().join("conf/10-net.conflist"), text).unwrap();
    }

    fn plugin(&self, name: &str, script: &str) {
        let path = self.dir.path().join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn leases(&self) -> usize {
        let dir = self.dir.path().join("ipam").join(&self.bridge);
        let files = fs::read_dir(dir).into_iter().flatten().flatten();
        files.filter(|file| file.file_name().to_string_lossy().starts_with("10.")).count()
    }
}

impl Drop for Directories {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "delete", &self.bridge]).output();
    }
}

async fn add(cni: &Cni, netns: &Path, id: &str) -> Result<NetworkStatus, sampan_network::Error> {
    let sandbox = SandboxNetwork { id: id.to_owned(), netns: netns.to_owned(), port_mappings: vec![] };
    let pod = CniPod { namespace: "default".into(), name: "web".into(), uid: "u".into() };
    cni.setup(&sandbox, &pod).await
}

#[tokio::test]
async fn debians_plugins_connect_check_and_disconnect_also_after_a_restart() {
    let net = Fixture::new().await;
    let dirs = Directories::new(&net);
    let cni = dirs.cni();
    assert!(cni.ready().unwrap_err().to_string().contains("cni plugin not initialized"));
    dirs.configure("");
    cni.ready().unwrap();
    let (a, b) = (net.netns("a"), net.netns("b"));
    let first = add(&cni, &a, "a").await.unwrap();
    let second = add(&cni, &b, "b").await.unwrap();
    assert_ne!(first.ips, second.ips);
    serve(&a, 8080);
    assert_eq!(greet_from(&b, (first.ips[0], 8080)).unwrap(), format!("hello {}", second.ips[0]));
    cni.check("a").await.unwrap();
    // Somebody takes the address away: CHECK says so.
    let mut flush = Command::new("nsenter");
    flush.arg(format!("--net={}", b.display())).args(["ip", "address", "flush", "eth0"]);
    assert!(flush.status().unwrap().success());
    assert!(cni.check("b").await.unwrap_err().to_string().starts_with("CHECK of CNI plugin bridge: "));
    // Another process, another configuration: what was done is undone as it was done.
    fs::write(dirs.dir.path().join("conf/10-net.conflist"), "{").unwrap();
    let again = dirs.cni();
    assert!(again.ready().is_err());
    again.teardown("b").await.unwrap();
    again.teardown("b").await.unwrap();
    assert_eq!(dirs.leases(), 1);
    again.reconcile(&HashSet::new()).await.unwrap();
    assert_eq!(dirs.leases(), 0);
    assert!(again.check("a").await.is_err());
    net.clean(&["a", "b"]).await;
}

#[tokio::test]
async fn a_plugin_that_fails_is_named_and_what_was_done_before_is_undone() {
    let net = Fixture::new().await;
    let dirs = Directories::new(&net);
    let cni = dirs.cni();
    let netns = net.netns("a");
    for (script, wanted) in [
        (r#"echo '{"code": 7, "msg": "no room", "details": "all full"}'; exit 1"#, "no room; all full"),
        ("echo first >&2; echo 'last words' >&2; exit 3", "last words"),
        ("exit 1", "does not say why"),
        ("echo '{'", "its result"),
        ("kill -9 $$", "does not say why"),
    ] {
        dirs.configure(r#", {"type": "strange"}"#);
        dirs.plugin("strange", &format!(r#"[ "$CNI_COMMAND" = ADD ] || exit 0; {script}"#));
        let error = add(&cni, &netns, "a").await.unwrap_err().to_string();
        assert!(error.starts_with("ADD of CNI plugin strange: ") && error.contains(wanted), "{error}");
        assert_eq!(dirs.leases(), 0, "{script}");
    }
    for missing in ["nobody", "../bin/sh", "/bin/sh"] {
        dirs.configure(&format!(r#", {{"type": "{missing}"}}"#));
        let error = cni.ready().unwrap_err().to_string();
        assert!(error.contains(&format!("finding CNI plugin {missing}")), "{error}");
    }
    net.clean(&["a"]).await;
}
