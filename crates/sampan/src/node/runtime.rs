//! The container runtime of a node: the embedded one with its images and network.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use sampan_network::{Cni, Network, NetworkConfig};
use sampan_oci::registry::ClientConfig;
use sampan_runtime::{
    Runtime, RuntimeConfig, SandboxNetwork,
    builtin::Builtin,
    images::{ImageError, ImageStore, ImageStoreConfig},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{Directories, NodeConfig, registry_hosts_dirs};

/// How long a server waits for a `sampan image` that has the image store.
const COMMANDS: Duration = Duration::from_secs(10);

/// Directories for root only: they hold keys, secrets and sockets.
pub(super) fn make_directories(config: &NodeConfig) -> Result<()> {
    [&config.data_dir, &config.run_dir].into_iter().try_for_each(|dir| make_private(dir))
}

fn make_private(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
        .with_context(|| format!("setting the mode of {}", dir.display()))
}

/// The image store of these directories, for a command without a server; none while another process has it.
pub(crate) async fn images(directories: &Directories) -> Result<Option<Arc<ImageStore>>> {
    // What is in images, files of other users and setuid programs, is nobody's to read or run.
    make_private(&directories.data())?;
    match ImageStore::try_open(image_config(directories, None)?).await {
        Err(ImageError::Busy { .. }) => Ok(None),
        opened => opened.map(Some).context("opening the image store"),
    }
}

/// How the image store of these directories works; a running server knows more about registries and handlers.
fn image_config(directories: &Directories, config: Option<&NodeConfig>) -> Result<ImageStoreConfig> {
    let mut store = ImageStoreConfig::new(directories.data().join("runtime"));
    store.registry = ClientConfig {
        insecure: config.iter().flat_map(|c| c.insecure_registries.iter().cloned()).collect(),
        certs_d: config.map_or_else(registry_hosts_dirs, |c| c.registry_hosts_dirs.clone()),
        ..ClientConfig::default()
    };
    if let Some(config) = config {
        store.handler_platforms = config.runtime.platforms()?;
    }
    // Without a server this is one command, which ends before its layers are on the disk.
    store.flush = config.is_some();
    store.exclusive = true;
    store.builtin = Some(Builtin {
        executable: executable()?,
        applets: sampan_toolbox::Applet::names().map(str::to_owned).collect(),
        cmd: vec!["httpd".to_owned()],
    });
    Ok(store)
}

/// The path of our own binary. It is asked for at the start: once an upgrade has replaced the file, the kernel gives
/// one that does not exist.
fn executable() -> Result<std::path::PathBuf> {
    std::env::current_exe().context("finding our own binary")
}

/// How pods are connected.
pub(super) enum PodNetwork {
    /// By the bridge of this server.
    BuiltIn(Arc<Network>),
    /// By CNI plugins.
    Cni(Arc<Cni>),
}

impl PodNetwork {
    async fn make(config: &NodeConfig) -> Result<Self> {
        if let Some(cni) = &config.cni {
            let state = config.data_dir.join("network/cni");
            let cni = Cni::new(cni.conf_dir.clone(), cni.bin_dirs.clone(), state).context("CNI")?;
            return Ok(Self::Cni(Arc::new(cni)));
        }
        let network = Network::new(NetworkConfig {
            bridge: config.bridge.clone(),
            pod_cidr: config.pod_cidr,
            service_cidr: config.service_cidr,
            cluster_cidr: config.cluster_cidr,
            state_dir: config.data_dir.join("network"),
            mtu: None,
        });
        Ok(Self::BuiltIn(network.await.context("making the pod network")?))
    }

    /// The built-in network, if it is that.
    pub(super) fn built_in(&self) -> Option<&Arc<Network>> {
        match self {
            Self::BuiltIn(network) => Some(network),
            Self::Cni(_) => None,
        }
    }

    fn for_runtime(&self) -> Arc<dyn SandboxNetwork> {
        match self {
            Self::BuiltIn(network) => network.clone(),
            Self::Cni(cni) => cni.clone(),
        }
    }
}

/// The embedded runtime, being served.
pub(crate) struct EmbeddedRuntime {
    runtime: Arc<Runtime>,
    network: PodNetwork,
    serving: JoinHandle<Result<(), sampan_runtime::Error>>,
    shutdown: CancellationToken,
}

impl EmbeddedRuntime {
    /// Reads the handlers again whenever the configuration file changes.
    fn follow(&self, config: &NodeConfig) {
        if let Some(file) = config.file.clone() {
            let runtime = Arc::clone(&self.runtime);
            tokio::spawn(super::reload::follow(file, config.runtime.clone(), runtime, self.shutdown.clone()));
        }
    }

    /// How its pods are connected.
    pub(super) fn network(&self) -> &PodNetwork {
        &self.network
    }

    /// Stops serving. Running pods go on and keep their network; without any it goes too.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        match self.serving.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "container runtime"),
            Err(error) => tracing::warn!(%error, "container runtime"),
        }
        if !self.runtime.has_running_sandboxes()
            && let Some(network) = self.network.built_in()
            && let Err(error) = network.destroy().await
        {
            tracing::warn!(%error, "removing the network");
        }
    }
}

/// The embedded runtime on its socket; none when another one is named.
pub(crate) async fn runtime(config: &NodeConfig) -> Result<Option<EmbeddedRuntime>> {
    if config.container_runtime_endpoint.is_some() {
        return Ok(None);
    }
    let directories =
        Directories { data_dir: Some(config.data_dir.clone()), run_dir: Some(config.run_dir.clone()) };
    let store = image_config(&directories, Some(config))?;
    let images = async {
        // A command ends soon; another server does not.
        let opened = match tokio::time::timeout(COMMANDS, ImageStore::open(store.clone())).await {
            Ok(opened) => opened,
            Err(_) => ImageStore::try_open(store).await,
        };
        opened.context("opening the image store")
    };
    let (network, images) = tokio::try_join!(PodNetwork::make(config), images)?;
    let archives = images.clone();
    let mut options = RuntimeConfig::new(
        config.data_dir.join("runtime"),
        config.run_dir.clone(),
        executable()?,
        images,
        network.for_runtime(),
    );
    (options.default_handler, options.handlers) = config.runtime.handlers()?;
    options.search_path = std::env::var("PATH").ok();
    // (Containers get their own limit with their specification.)
    sampan_shim::raise_open_files();
    let runtime = Runtime::start(options).await.context("starting the container runtime")?;
    let shutdown = CancellationToken::new();
    // Beside the start, not in its way: an archive may take minutes.
    tokio::spawn(archives.preload(config.data_dir.join("images"), shutdown.clone()));
    let (socket, stop) = (config.run_dir.join("cri.sock"), shutdown.clone());
    // The socket of a server that was killed is still there and refuses connections: it is no sign of ours.
    let _ = fs::remove_file(&socket);
    let (path, server) = (socket.clone(), Arc::clone(&runtime));
    let serving = tokio::spawn(async move { server.serve(&path, stop).await });
    while !serving.is_finished() && tokio::net::UnixStream::connect(&socket).await.is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let embedded = EmbeddedRuntime { runtime, network, serving, shutdown };
    embedded.follow(config);
    Ok(Some(embedded))
}
