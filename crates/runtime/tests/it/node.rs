//! A runtime of its own for a test: directories, bridge, cgroups, socket; and the check that nothing is left.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sampan_cri::client::Client;
use sampan_network::{Network, NetworkConfig};
use sampan_runtime::builtin::Builtin;
use sampan_runtime::images::{ImageStore, ImageStoreConfig};
use sampan_runtime::{HandlerConfig, NoNetwork, Runtime, RuntimeConfig, SandboxNetwork};
use tokio_util::sync::CancellationToken;

use super::conformance::Target;
use super::remains;

/// The image of every test container.
pub const IMAGE: &str = "sampan.local/toolbox:latest";

pub struct Node {
    pub dir: PathBuf,
    pub runtime: Arc<Runtime>,
    pub target: Target,
    bridge: Option<String>,
    network: Option<Arc<Network>>,
    images: Arc<ImageStore>,
    shutdown: CancellationToken,
    serving: Option<tokio::task::JoinHandle<()>>,
}

impl Node {
    /// With pods that have no interfaces: enough for most tests, and quicker.
    pub async fn start() -> Self {
        Self::with(remains::names().0, None).await
    }

    /// With a bridge.
    pub async fn start_with_network() -> Self {
        let number = rand::random::<u32>();
        let (dir, bridge) = remains::names();
        let config = NetworkConfig {
            bridge: bridge.clone(),
            pod_cidr: format!("10.{}.{}.0/24", 64 + (number >> 8) % 64, number & 0xff).parse().unwrap(),
            cluster_cidr: format!("10.{}.{}.0/24", 64 + (number >> 8) % 64, number & 0xff).parse().unwrap(),
            service_cidr: format!("10.{}.{}.0/24", 128 + (number >> 8) % 64, number & 0xff).parse().unwrap(),
            state_dir: dir.join("network"),
            mtu: None,
        };
        let network = Network::new(config).await.unwrap();
        Self::with(dir, Some((bridge, network))).await
    }

    async fn with(dir: PathBuf, network: Option<(String, Arc<Network>)>) -> Self {
        let (bridge, network) = network.unzip();
        std::fs::create_dir_all(&dir).unwrap();
        let mut config = ImageStoreConfig::new(dir.join("data"));
        let mut applets: Vec<String> = sampan_toolbox::Applet::names().map(str::to_owned).collect();
        applets.push("probe".to_owned());
        let executable = std::env::current_exe().unwrap();
        config.builtin = Some(Builtin { executable, applets, cmd: vec!["true".to_owned()] });
        let images = ImageStore::open(config).await.unwrap();
        let runtime = start_runtime(&dir, &images, network.as_ref()).await;
        let (shutdown, serving, client) = serve(&dir, &runtime).await;
        let target = Target {
            client,
            image: IMAGE.to_owned(),
            logs: dir.join("logs"),
            cgroup_parent: remains::cgroup(&dir),
            has_network: network.is_some(),
            handler: String::new(),
        };
        Self { dir, runtime, target, bridge, network, images, shutdown, serving: Some(serving) }
    }

    /// What a killed daemon and its successor are to the containers: nothing of this one is told anything.
    pub async fn restart(&mut self) {
        self.stop_serving().await;
        self.runtime = start_runtime(&self.dir, &self.images, self.network.as_ref()).await;
        let (shutdown, serving, client) = serve(&self.dir, &self.runtime).await;
        self.shutdown = shutdown;
        self.serving = Some(serving);
        self.target.client = client;
    }

    /// Stops serving without starting again; for what happens in between.
    pub async fn stop_serving(&mut self) {
        self.shutdown.cancel();
        if let Some(serving) = self.serving.take() {
            serving.await.unwrap();
        }
    }

    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// Removes every pod and checks that no mount, process or cgroup of this runtime is left.
    pub async fn finish(mut self) {
        self.target.remove_everything().await;
        self.stop_serving().await;
        let leftovers = self.leftovers().await;
        if let Some(network) = self.network.take() {
            network.destroy().await.unwrap();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
        assert!(leftovers.is_empty(), "left behind: {leftovers:#?}");
    }

    async fn leftovers(&self) -> Vec<String> {
        // Shims take a moment to end.
        for _ in 0..50 {
            if self.find_leftovers().is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.find_leftovers()
    }

    fn find_leftovers(&self) -> Vec<String> {
        let marker = self.dir.display().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut found: Vec<String> = mounts
            .lines()
            .filter(|line| line.contains(&marker))
            .map(|line| format!("mount {line}"))
            .collect();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            if command.contains(&marker) {
                found.push(format!("process {} {command}", entry.path().display()));
            }
        }
        found.extend(
            cgroup_directories(&self.target.cgroup_parent).into_iter().map(|path| format!("cgroup {path}")),
        );
        for dir in ["containers", "sandboxes", "shims"] {
            for entry in std::fs::read_dir(self.run_dir().join(dir)).unwrap().flatten() {
                found.push(format!("file {}", entry.path().display()));
            }
        }
        for dir in ["containers", "sandboxes"] {
            for entry in std::fs::read_dir(self.dir.join("data").join(dir)).unwrap().flatten() {
                found.push(format!("file {}", entry.path().display()));
            }
        }
        found
    }
}

impl Drop for Node {
    /// After a failure: everything goes by force. [`Node::finish`] leaves nothing to do.
    fn drop(&mut self) {
        if self.dir.exists() {
            self.shutdown.cancel();
            remains::remove(&self.dir, self.bridge.as_deref(), &self.target.cgroup_parent);
        }
    }
}

/// The directories of a cgroup, in every hierarchy.
pub fn cgroup_directories(cgroup: &str) -> Vec<String> {
    let relative = cgroup.trim_start_matches('/');
    let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
    roots.extend(std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path()));
    let found = roots.into_iter().map(|root| root.join(relative)).filter(|path| path.is_dir());
    found.map(|path| path.display().to_string()).collect()
}

async fn start_runtime(dir: &Path, images: &Arc<ImageStore>, network: Option<&Arc<Network>>) -> Arc<Runtime> {
    let network: Arc<dyn SandboxNetwork> = match network {
        Some(network) => Arc::clone(network) as Arc<dyn SandboxNetwork>,
        None => Arc::new(NoNetwork),
    };
    let executable = std::env::current_exe().unwrap();
    let mut config =
        RuntimeConfig::new(dir.join("data"), dir.join("run"), executable, Arc::clone(images), network);
    for (name, path) in [("runc", "/usr/sbin/runc"), ("crun", "/usr/bin/crun")] {
        let path = PathBuf::from(path);
        config.handlers.insert(name.to_owned(), HandlerConfig::binary(path));
    }
    Runtime::start(config).await.unwrap()
}

async fn serve(
    dir: &Path,
    runtime: &Arc<Runtime>,
) -> (CancellationToken, tokio::task::JoinHandle<()>, Client) {
    let socket = dir.join("run").join("cri.sock");
    let shutdown = CancellationToken::new();
    let serving = {
        let (runtime, socket, shutdown) = (Arc::clone(runtime), socket.clone(), shutdown.clone());
        tokio::spawn(async move { runtime.serve(&socket, shutdown).await.unwrap() })
    };
    let endpoint = format!("unix://{}", socket.display());
    for _ in 0..200 {
        if let Ok(client) = sampan_cri::client::connect(&endpoint).await {
            return (shutdown, serving, client);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nobody serves {endpoint}");
}
