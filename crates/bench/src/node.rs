//! A server in directories of its own, and `sampan run` in others.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::{Api, Client, api::ListParams, config::Kubeconfig};

/// The cgroup of its pods.
const CGROUP: &str = "/sampan-bench";
/// How long a server may take to stop hundreds of pods.
const STOPPED: Duration = Duration::from_secs(60);

pub(crate) struct Node {
    binary: PathBuf,
    dir: tempfile::TempDir,
    process: Option<Child>,
    port: u16,
}

impl Node {
    pub(crate) fn new(binary: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("sampan-bench-").tempdir()?;
        Ok(Self { binary: binary.to_owned(), dir, process: None, port: free_port()? })
    }

    /// Starts the server; how long it took from there to the node's Ready condition.
    pub(crate) async fn start(&mut self) -> Result<Duration> {
        remove_cgroups();
        let log = fs::File::create(self.dir.path().join("log"))?;
        let started = Instant::now();
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let process = Command::new(&self.binary)
            .arg("server")
            .args(["--data-dir", &path("data"), "--run-dir", &path("run"), "--log-dir", &path("logs")])
            .args(["--write-kubeconfig", &path("kubeconfig"), "--bind-address", "127.0.0.1", "--stop-pods"])
            .args([
                "--https-listen-port",
                &self.port.to_string(),
                "--kubelet-port",
                &free_port()?.to_string(),
            ])
            .args(["--bridge", "sampan-bench", "--cgroup-root", CGROUP, "--cluster-cidr", "10.207.0.0/24"])
            .args(["--service-cidr", "10.208.0.0/20", "--max-pods", "250"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.binary.display()))?;
        self.process = Some(process);
        let deadline = started + Duration::from_secs(30);
        while !self.dir.path().join("kubeconfig").exists() {
            ensure!(Instant::now() < deadline, "the server does not start: {}", self.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let nodes: Api<NodeObject> = Api::all(self.client().await?);
        loop {
            ensure!(Instant::now() < deadline, "the node does not get Ready: {}", self.log());
            if nodes.list(&ListParams::default()).await.is_ok_and(|nodes| nodes.items.iter().any(is_ready)) {
                return Ok(started.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(crate) async fn client(&self) -> Result<Client> {
        let kubeconfig = Kubeconfig::read_from(self.dir.path().join("kubeconfig"))?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
        Ok(Client::try_from(config)?)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, Child::id)
    }

    pub(crate) fn run_dir(&self) -> &Path {
        self.dir.path()
    }

    /// Stops the server with its pods.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&process),
            rustix::process::Signal::TERM,
        )?;
        let deadline = Instant::now() + STOPPED;
        while process.try_wait()?.is_none() {
            if Instant::now() > deadline {
                process.kill()?;
                bail!("the server did not stop: {}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Also after a measurement that failed: pods that nobody stops would be part of the next one.
        if let Some(process) = &mut self.process {
            let pid = rustix::process::Pid::from_child(process);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let deadline = Instant::now() + STOPPED;
            while Instant::now() < deadline && matches!(process.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = process.kill();
            let _ = process.wait();
        }
        remove_cgroups();
    }
}

/// What an earlier or an interrupted measurement left: a server that is killed cannot clear up.
fn remove_cgroups() {
    fn remove(dir: &Path) {
        for below in fs::read_dir(dir).into_iter().flatten().flatten().filter(|below| below.path().is_dir()) {
            remove(&below.path());
        }
        let _ = fs::remove_dir(dir);
    }
    let hierarchies =
        fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
        remove(&hierarchy.join(CGROUP.trim_start_matches('/')));
    }
}

fn is_ready(node: &NodeObject) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| {
        all.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    })
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// `sampan run` of a pod that is `true`.
pub(crate) struct Runner {
    binary: PathBuf,
    dir: tempfile::TempDir,
}

impl Runner {
    pub(crate) fn new(binary: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("sampan-bench-").tempdir()?;
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "once"},
            "spec": {"restartPolicy": "Never", "containers": [
                {"name": "c", "image": "sampan.local/toolbox", "imagePullPolicy": "IfNotPresent", "command": ["true"]},
            ]},
        });
        fs::write(dir.path().join("pod.json"), pod.to_string())?;
        Ok(Self { binary: binary.to_owned(), dir })
    }

    /// From the command to its prompt.
    pub(crate) fn run_true(&self) -> Result<Duration> {
        let started = Instant::now();
        let output = Command::new(&self.binary)
            .args(["--quiet", "run"])
            .arg(self.dir.path().join("pod.json"))
            .arg("--data-dir")
            .arg(self.dir.path().join("data"))
            .arg("--run-dir")
            .arg(self.dir.path().join("run"))
            .stdin(Stdio::null())
            .output()?;
        ensure!(output.status.success(), "sampan run: {}", String::from_utf8_lossy(&output.stderr));
        Ok(started.elapsed())
    }
}
