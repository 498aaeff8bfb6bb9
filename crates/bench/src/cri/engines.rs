//! The engines, each with directories, socket, bridge and range of its own.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use sampan_cri::client::{Client, connect};

use super::Load;

/// `sampan cri`.
pub(crate) struct Sampan {
    process: Child,
    dir: tempfile::TempDir,
    client: Client,
}

/// Debian's containerd with its CNI plugins.
pub(crate) struct Containerd {
    process: Child,
    dir: tempfile::TempDir,
    client: Client,
}

async fn answering(socket: &Path, process: &mut Child) -> Result<Client> {
    let endpoint = format!("unix://{}", socket.display());
    for _ in 0..600 {
        if let Ok(client) = connect(&endpoint).await {
            return Ok(client);
        }
        ensure!(process.try_wait()?.is_none(), "the runtime of {endpoint} ended");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("{endpoint} does not answer")
}

impl Sampan {
    pub(crate) async fn start(binary: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("sampan-bench-cri-").tempdir()?;
        let log = std::fs::File::create(dir.path().join("log"))?;
        let mut process = Command::new(binary)
            .arg("cri")
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .arg("--run-dir")
            .arg(dir.path().join("run"))
            .args(["--bridge", "smpt-bench-cri", "--cluster-cidr", "10.201.0.0/24"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting sampan cri")?;
        let client = answering(&dir.path().join("run/cri.sock"), &mut process).await?;
        Ok(Self { process, dir, client })
    }

    pub(crate) fn load(&self, handler: &str, mark: &str) -> Load {
        Load {
            client: self.client.clone(),
            handler: handler.to_owned(),
            image: "sampan.local/toolbox:latest".to_owned(),
            mark: mark.to_owned(),
        }
    }

    /// What is on the command lines of its processes.
    pub(crate) fn mark(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Without pods it takes its bridge with it.
    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        self.process.wait()?;
        Ok(())
    }
}

impl Containerd {
    /// `None` where it is not installed.
    pub(crate) async fn start(binary: &Path) -> Result<Option<Self>> {
        if ["/usr/bin/containerd", "/usr/lib/cni/bridge"].iter().any(|path| !Path::new(path).exists()) {
            eprintln!("containerd is not installed (`cargo xtask setup`): nothing to compare CRI with");
            return Ok(None);
        }
        let dir = tempfile::Builder::new().prefix("sampan-bench-ctrd-").tempdir()?;
        let at = |name: &str| dir.path().join(name).display().to_string();
        std::fs::create_dir(dir.path().join("cni"))?;
        let network = serde_json::json!({"cniVersion": "0.4.0", "name": "bench", "plugins": [
            {"type": "bridge", "bridge": "smpt-bench-ctr", "isGateway": true, "ipam": {
                "type": "host-local", "dataDir": at("ipam"), "routes": [{"dst": "0.0.0.0/0"}],
                "ranges": [[{"subnet": "10.202.0.0/24"}]],
            }},
        ]});
        std::fs::write(dir.path().join("cni/10.conflist"), network.to_string())?;
        let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n[grpc]\naddress = {:?}\n[{cri}]\nsandbox_image = \"sampan.local/pause:1\"\nrestrict_oom_score_adj = true\nnetns_mounts_under_state_dir = true\n[{cri}.cni]\nbin_dir = \"/usr/lib/cni\"\nconf_dir = {:?}\n[{cri}.containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n",
            at("root"),
            at("state"),
            at("c.sock"),
            at("cni"),
        );
        std::fs::write(dir.path().join("config.toml"), config)?;
        let log = std::fs::File::create(dir.path().join("log"))?;
        let mut process = Command::new("containerd")
            .arg("--config")
            .arg(dir.path().join("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting containerd")?;
        let client = answering(&dir.path().join("c.sock"), &mut process).await?;
        let containerd = Self { process, dir, client };
        containerd.import("sampan.local/pause:1", binary)?;
        containerd.import("sampan.local/toolbox:latest", binary)?;
        Ok(Some(containerd))
    }

    /// An image with the same program as sampan's built-in one, made by its tar and loaded as `docker save` writes it.
    fn import(&self, name: &str, binary: &Path) -> Result<()> {
        let work = self.dir.path().join("image");
        let root = work.join("rootfs");
        std::fs::create_dir_all(root.join("bin"))?;
        std::fs::copy(binary, root.join("bin/sampan"))?;
        for applet in ["true", "sleep"] {
            let _ = std::os::unix::fs::symlink("sampan", root.join("bin").join(applet));
        }
        let run = |command: &mut Command| -> Result<String> {
            let output = command.stdin(Stdio::null()).output()?;
            ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let (layer, archive) = (work.join("layer.tar"), work.join("image.tar"));
        run(Command::new("tar").arg("-cf").arg(&layer).arg("-C").arg(&root).arg("."))?;
        let digest = run(Command::new("sha256sum").arg(&layer))?;
        let digest = digest.split_whitespace().next().unwrap_or_default();
        let architecture = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
        let config = serde_json::json!({
            "architecture": architecture, "os": "linux",
            "config": {"Cmd": ["sleep", "1000000"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        });
        let manifest =
            serde_json::json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
        std::fs::write(work.join("config.json"), config.to_string())?;
        std::fs::write(work.join("manifest.json"), manifest.to_string())?;
        let parts = ["layer.tar", "config.json", "manifest.json"];
        run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&work).args(parts))?;
        let socket = self.dir.path().join("c.sock");
        let import = ["--namespace", "k8s.io", "images", "import"];
        run(Command::new("ctr").arg("--address").arg(socket).args(import).arg(&archive))?;
        Ok(())
    }

    pub(crate) fn load(&self) -> Load {
        Load {
            client: self.client.clone(),
            handler: String::new(),
            image: "sampan.local/toolbox:latest".to_owned(),
            mark: "containerd-runc".to_owned(),
        }
    }

    /// What is on the command lines of its processes.
    pub(crate) fn mark(&self) -> PathBuf {
        self.dir.path().to_owned()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        // Namespaces of pods that an interrupted measurement left are mounted here too.
        for entry in std::fs::read_dir(self.dir.path().join("state/netns")).into_iter().flatten().flatten() {
            let _ = Command::new("umount").arg("-l").arg(entry.path()).output();
        }
        let _ = Command::new("ip").args(["link", "delete", "smpt-bench-ctr"]).output();
    }
}
