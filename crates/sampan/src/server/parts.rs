//! The parts of a server, each made from the configuration.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use sampan_apiserver::{ApiServer, Pki, admission::AdmissionConfig, pki::PkiConfig};
use sampan_kubelet::{KubeletConfig, Serving};
use sampan_network::{Cni, Network, NetworkConfig};
use sampan_oci::registry::ClientConfig;
use sampan_runtime::{
    Runtime, RuntimeConfig, SandboxNetwork,
    builtin::Builtin,
    images::{ImageStore, ImageStoreConfig},
};
use sampan_store::{Store, embedded::Embedded, etcd::Etcd};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::digests::RegistryDigests;
use crate::config::{Directories, ServerConfig, registry_hosts_dirs};

/// How long a runtime may take for its first answer: a socket of something else may never give one.
const CRI_PATIENCE: Duration = Duration::from_secs(10);

/// Directories for root only: they hold keys, secrets and sockets.
pub(super) fn make_directories(config: &ServerConfig) -> Result<()> {
    for dir in [&config.data_dir, &config.run_dir] {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
            .with_context(|| format!("setting the mode of {}", dir.display()))?;
    }
    Ok(())
}

/// The API server over its store. What `address` says is in its certificate.
pub(super) async fn api(config: &ServerConfig, address: SocketAddr) -> Result<(Arc<ApiServer>, Pki)> {
    let service_cidr: sampan_apiserver::Cidr =
        config.service_cidr.parse().map_err(|error| anyhow::anyhow!("--service-cidr: {error}"))?;
    let store = store(config).await?;
    let mut ips = vec![config.node_ip];
    ips.extend(Some(address.ip()).filter(|ip| !ip.is_unspecified()));
    let pki = Pki::ensure(
        &config.data_dir.join("pki"),
        &PkiConfig {
            node_name: config.node_name.clone(),
            hostnames: Vec::new(),
            ips,
            service_ip: service_cidr.nth(1),
            cluster_domain: config.cluster_domain.clone(),
        },
    )
    .context("certificates")?;
    let server = ApiServer::start(sampan_apiserver::Config {
        store,
        pki: pki.clone(),
        service_cidr,
        node_ports: (30000, 32767),
        cluster_domain: config.cluster_domain.clone(),
        advertise: (config.node_ip, address.port()),
        token_auth_file: None,
        admission: AdmissionConfig {
            enable: config.enable_admission_plugins.clone(),
            disable: config.disable_admission_plugins.clone(),
            digests: Some(Arc::new(RegistryDigests::new(config)?)),
        },
    })
    .await
    .context("starting the API server")?;
    Ok((server, pki))
}

async fn store(config: &ServerConfig) -> Result<Arc<dyn Store>> {
    Ok(match &config.datastore_endpoint {
        Some(endpoint) => Etcd::connect(endpoint, None).await.context("--datastore-endpoint")?,
        None => Embedded::open(&config.data_dir.join("store")).context("opening the store")?,
    })
}

/// The image store of these directories; a running server knows more about registries and handlers.
pub(crate) async fn images(
    directories: &Directories,
    config: Option<&ServerConfig>,
) -> Result<Arc<ImageStore>> {
    let mut store = ImageStoreConfig::new(directories.data().join("runtime"));
    store.registry = ClientConfig {
        insecure: config.iter().flat_map(|c| c.insecure_registries.iter().cloned()).collect(),
        certs_d: config.map_or_else(registry_hosts_dirs, |c| c.registry_hosts_dirs.clone()),
        ..ClientConfig::default()
    };
    for (name, handler) in config.iter().flat_map(|c| &c.runtime.handlers) {
        if let Some(platform) = &handler.platform {
            let platform = platform.parse().with_context(|| format!("runtime handler {name}: platform"))?;
            store.handler_platforms.insert(name.clone(), platform);
        }
    }
    store.builtin = Some(Builtin {
        executable: executable()?,
        applets: sampan_toolbox::Applet::names().map(str::to_owned).collect(),
        cmd: vec!["httpd".to_owned()],
    });
    ImageStore::open(store).await.context("opening the image store")
}

/// The binary that we are, also after an upgrade has replaced the file.
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
    async fn make(config: &ServerConfig) -> Result<Self> {
        if let Some(cni) = &config.cni {
            let state = config.data_dir.join("network/cni");
            let cni = Cni::new(cni.conf_dir.clone(), cni.bin_dirs.clone(), state).context("CNI")?;
            return Ok(Self::Cni(Arc::new(cni)));
        }
        let network = Network::new(NetworkConfig {
            bridge: config.bridge.clone(),
            pod_cidr: config.pod_cidr,
            service_cidr: config.services,
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
pub(super) struct EmbeddedRuntime {
    runtime: Arc<Runtime>,
    network: PodNetwork,
    serving: JoinHandle<Result<(), sampan_runtime::Error>>,
    shutdown: CancellationToken,
}

impl EmbeddedRuntime {
    /// Reads the handlers again whenever the configuration file changes.
    fn follow(&self, config: &ServerConfig) {
        if let Some(path) = config.file.clone() {
            let runtime = Arc::clone(&self.runtime);
            tokio::spawn(super::reload::follow(path, config.runtime.clone(), runtime, self.shutdown.clone()));
        }
    }

    /// How its pods are connected.
    pub(super) fn network(&self) -> &PodNetwork {
        &self.network
    }

    /// Stops serving. Running pods go on and keep their network; without any it goes too.
    pub(super) async fn stop(self) {
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
pub(super) async fn runtime(config: &ServerConfig) -> Result<Option<EmbeddedRuntime>> {
    if config.container_runtime_endpoint.is_some() {
        return Ok(None);
    }
    let directories =
        Directories { data_dir: Some(config.data_dir.clone()), run_dir: Some(config.run_dir.clone()) };
    let (network, images) = tokio::try_join!(PodNetwork::make(config), images(&directories, Some(config)))?;
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

/// The kubelet's connection to its runtime.
pub(super) async fn cri_client(config: &ServerConfig, embedded: bool) -> Result<sampan_cri::client::Client> {
    match &config.container_runtime_endpoint {
        Some(endpoint) if !embedded => {
            let answers = async {
                let client = sampan_cri::client::connect(endpoint).await?;
                let request = sampan_cri::v1::VersionRequest { version: "v1".to_owned() };
                let version = client.runtime.clone().version(request).await?.into_inner();
                tracing::info!(
                    runtime = version.runtime_name,
                    version = version.runtime_version,
                    endpoint,
                    "CRI"
                );
                Ok(client)
            };
            match tokio::time::timeout(CRI_PATIENCE, answers).await {
                Ok(client) => client,
                Err(_) => Err(anyhow::anyhow!("nothing that speaks CRI answers within {CRI_PATIENCE:?}")),
            }
            .with_context(|| format!("--container-runtime-endpoint {endpoint}"))
        }
        _ => {
            let endpoint = format!("unix://{}", config.run_dir.join("cri.sock").display());
            Ok(sampan_cri::client::connect_lazy(&endpoint)?)
        }
    }
}

/// What the kubelet is told.
pub(super) fn kubelet_config(
    config: &ServerConfig,
    pki: &Pki,
    client: kube::Client,
    cri: sampan_cri::client::Client,
    cluster_dns: Option<std::net::IpAddr>,
) -> KubeletConfig {
    let mut kubelet = KubeletConfig::new(
        &config.node_name,
        client,
        Arc::new(cri),
        config.data_dir.join("kubelet"),
        config.node_ip,
    );
    for warning in config.kubelet.warnings() {
        tracing::warn!("{warning}");
    }
    kubelet.cluster_dns.extend(cluster_dns);
    config.kubelet.apply(&mut kubelet);
    kubelet.images.image_credential_provider_config = config.image_credential_provider_config.clone();
    kubelet.images.image_credential_provider_bin_dir = config.image_credential_provider_bin_dir.clone();
    // The flat links are shared by the machine: only the server with the usual log directory makes them.
    let usual_logs = config.log_dir == Path::new("/var/log/pods");
    KubeletConfig {
        log_dir: config.log_dir.clone(),
        container_log_dir: usual_logs.then(|| "/var/log/containers".into()),
        serving: Some(Serving {
            address: SocketAddr::new(config.bind_address, config.kubelet_port),
            certificate_pem: pki.kubelet_serving().certificate.clone().into_bytes(),
            private_key_pem: pki.kubelet_serving().key.clone().into_bytes(),
            client_ca_pem: pki.ca_pem().as_bytes().to_vec(),
        }),
        cluster_domain: config.cluster_domain.clone(),
        pod_cidr: Some(config.pod_cidr.to_string()),
        labels: config.node_labels.clone(),
        max_pods: config.max_pods,
        static_pod_path: config.static_pod_path.clone(),
        cgroup_root: config.cgroup_root.clone(),
        ..kubelet
    }
}

/// Writes the administrator's kubeconfig, readable by root only, whole or not at all.
pub(super) fn write_kubeconfig(config: &ServerConfig, pki: &Pki, address: SocketAddr) -> Result<()> {
    let host = match address.ip() {
        ip if ip.is_unspecified() && ip.is_ipv4() => "127.0.0.1".to_owned(),
        ip if ip.is_unspecified() => "[::1]".to_owned(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        ip => ip.to_string(),
    };
    let text = pki.admin_kubeconfig(&format!("https://{host}:{}", address.port()));
    let path = &config.kubeconfig;
    let writing = || format!("writing {}", path.display());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(writing)?;
    }
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut open = fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(open.write(true).create_new(true), 0o600);
    let mut file = open.open(&temporary).with_context(writing)?;
    std::io::Write::write_all(&mut file, text.as_bytes()).with_context(writing)?;
    fs::rename(&temporary, path).with_context(writing)
}
