//! What a kubelet is told when it starts.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::cri::ContainerRuntime;
use crate::eviction::{EvictionConfig, SignalSource};
use crate::images::config::ImageConfig;
use crate::shutdown::ShutdownStep;

/// The kubelet's configuration. [`KubeletConfig::new`] fills in upstream's defaults.
#[derive(Clone)]
pub struct KubeletConfig {
    /// The name of the Node object.
    pub node_name: String,
    /// The API, as `system:node:<node_name>`.
    pub client: kube::Client,
    /// The container runtime: [`CriRuntime`](crate::cri::CriRuntime), or a fake.
    pub cri: Arc<dyn ContainerRuntime>,
    /// The kubelet's own state: `pods/<uid>` with volumes, hosts files and termination messages.
    pub data_dir: PathBuf,
    /// Where container logs are: `<log_dir>/<ns>_<pod>_<uid>/<container>/<n>.log`.
    pub log_dir: PathBuf,
    /// Where the flat links to the logs are made (`/var/log/containers`), if anywhere.
    pub container_log_dir: Option<PathBuf>,
    /// What the HTTPS port needs; without it there is no port.
    pub serving: Option<Serving>,
    /// The node's address, for status and for pods on the host's network.
    pub node_ip: IpAddr,
    /// More addresses of the node (the other family).
    pub additional_node_ips: Vec<IpAddr>,
    /// Name servers of pods with `dnsPolicy: ClusterFirst`.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's DNS domain; empty switches cluster searches off.
    pub cluster_domain: String,
    /// The node's resolver configuration that pods inherit.
    pub resolv_conf: PathBuf,
    /// The address range of this node's pods, told to the runtime when the API server sets none.
    pub pod_cidr: Option<String>,
    /// Labels for the Node object, beside the well-known ones.
    pub labels: BTreeMap<String, String>,
    /// `key=value:Effect` taints are set at registration only.
    pub register_with_taints: Vec<k8s_openapi::api::core::v1::Taint>,
    /// How many pods may run here.
    pub max_pods: u32,
    /// How many ids a pod with `hostUsers: false` has; a multiple of 65,536.
    pub ids_per_pod: u32,
    /// Pods per core, when that makes fewer than `max_pods`; 0 for no such limit.
    pub pods_per_core: u32,
    /// What is kept from pods for the system: resource name to quantity.
    pub system_reserved: BTreeMap<String, String>,
    /// What is kept from pods for the kubelet and the runtime: resource name to quantity.
    pub kube_reserved: BTreeMap<String, String>,
    /// Whether the cgroup of all pods is limited to the allocatable: `pods` does, `none` does not.
    pub enforce_node_allocatable: Vec<String>,
    /// When the node is short of something, and what happens then.
    pub eviction: EvictionConfig,
    /// Where the numbers come from that it looks at; `None` for this machine.
    pub signals: Option<SignalSource>,
    /// Whether ephemeral storage is watched and its limits enforced.
    pub local_storage_isolation: bool,
    /// In which order and time pods end when the node stops; empty for all at once with their own grace.
    pub shutdown: Vec<ShutdownStep>,
    /// Whether systemd, where there is one, is asked to let a shutdown of the machine wait for that.
    pub inhibit_shutdown: bool,
    /// Process ids per pod; -1 for no limit.
    pub pod_pids_limit: i64,
    /// Whether CPU limits are enforced.
    pub cpu_cfs_quota: bool,
    /// The period in which they are.
    pub cpu_cfs_quota_period: Duration,
    /// Whether the kernel may kill one process of a container that is out of memory and leave the others; `None` for
    /// what the machine has: cgroup v2 kills all of them together, v1 cannot.
    pub single_process_oom_kill: Option<bool>,
    /// Sysctls beside the safe ones that pods may set; a trailing `*` matches any rest.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Whether `RuntimeDefault` is the seccomp profile of containers that name none.
    pub seccomp_default: bool,
    /// A directory (or file) of manifests of pods that run without an API server (POD-49).
    pub static_pod_path: Option<PathBuf>,
    /// How often it is read although nothing told of a change.
    pub file_check_frequency: Duration,
    /// How often the node's status is looked at.
    pub node_status_update_frequency: Duration,
    /// How often it is written although nothing changed.
    pub node_status_report_frequency: Duration,
    /// How long the node's Lease is valid, in seconds; it is renewed in a quarter of it.
    pub node_lease_duration_seconds: i32,
    /// How often sizes of container logs are looked at.
    pub container_log_monitor_interval: Duration,
    /// `spec.providerID` of the Node.
    pub provider_id: Option<String>,
    /// The cgroup that `kubepods` is made in, `/` for the root.
    pub cgroup_root: String,
    /// Where control groups are mounted; `None` leaves all of them to the runtime.
    pub cgroup_mount: Option<PathBuf>,
    /// Pulls, credentials, access to and removal of images.
    pub images: ImageConfig,
    /// Size at which a container's log is rotated, in bytes.
    pub container_log_max_size: u64,
    /// How many log files are kept per container.
    pub container_log_max_files: usize,
    /// The version in `nodeInfo.kubeletVersion`, such as `v1.36.2+sampan.0.1.0`.
    pub version: String,
    /// How often a pod without any change is looked at again (volumes, tokens, safety).
    pub sync_frequency: Duration,
    /// The longest wait between restarts of a crashing container (POD-15).
    pub max_container_restart_period: Duration,
    /// Where time comes from.
    pub clock: Clock,
}

/// Certificates and address of the HTTPS port.
#[derive(Clone)]
pub struct Serving {
    /// Address and port; port 0 takes any free one.
    pub address: SocketAddr,
    /// What is shown to clients; another one when it was renewed.
    pub identity: tokio::sync::watch::Receiver<ServingIdentity>,
    /// The CA of client certificates, PEM.
    pub client_ca_pem: Vec<u8>,
}

/// A certificate of the HTTPS port.
#[derive(Clone)]
pub struct ServingIdentity {
    /// The serving certificate chain, PEM.
    pub certificate_pem: Vec<u8>,
    /// Its private key, PEM.
    pub private_key_pem: Vec<u8>,
}

impl KubeletConfig {
    /// A configuration with upstream's defaults for everything that is not given.
    #[must_use]
    pub fn new(
        node_name: impl Into<String>,
        client: kube::Client,
        cri: Arc<dyn ContainerRuntime>,
        data_dir: impl Into<PathBuf>,
        node_ip: IpAddr,
    ) -> Self {
        Self {
            node_name: node_name.into(),
            client,
            cri,
            data_dir: data_dir.into(),
            log_dir: PathBuf::from("/var/log/pods"),
            container_log_dir: Some(PathBuf::from("/var/log/containers")),
            serving: None,
            node_ip,
            additional_node_ips: Vec::new(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            pod_cidr: None,
            labels: BTreeMap::new(),
            register_with_taints: Vec::new(),
            max_pods: 110,
            ids_per_pod: crate::user_namespaces::UNIT,
            pods_per_core: 0,
            system_reserved: BTreeMap::new(),
            kube_reserved: BTreeMap::new(),
            enforce_node_allocatable: vec!["pods".to_owned()],
            eviction: EvictionConfig::default(),
            signals: None,
            local_storage_isolation: true,
            shutdown: Vec::new(),
            inhibit_shutdown: false,
            pod_pids_limit: -1,
            cpu_cfs_quota: true,
            cpu_cfs_quota_period: Duration::from_millis(100),
            single_process_oom_kill: None,
            allowed_unsafe_sysctls: Vec::new(),
            seccomp_default: false,
            static_pod_path: None,
            file_check_frequency: Duration::from_secs(20),
            node_status_update_frequency: Duration::from_secs(10),
            node_status_report_frequency: Duration::from_secs(300),
            node_lease_duration_seconds: 40,
            container_log_monitor_interval: Duration::from_secs(10),
            provider_id: None,
            cgroup_root: "/".to_owned(),
            cgroup_mount: Some(PathBuf::from("/sys/fs/cgroup")),
            images: ImageConfig::default(),
            container_log_max_size: 10 * 1024 * 1024,
            container_log_max_files: 5,
            version: sampan_api::version::GIT_VERSION.to_owned(),
            sync_frequency: Duration::from_secs(60),
            max_container_restart_period: Duration::from_secs(300),
            clock: Clock::System,
        }
    }

    /// All addresses of the node, the first one first.
    pub(crate) fn node_ips(&self) -> Vec<IpAddr> {
        std::iter::once(self.node_ip).chain(self.additional_node_ips.iter().copied()).collect()
    }
}

/// What happens to running pods when the kubelet stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownMode {
    /// They keep running; the next kubelet on this data directory finds them.
    KeepPods,
    /// They are terminated with their grace periods first.
    StopPods,
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A configuration with upstream's defaults, a client and a runtime that are never reached.
    pub(crate) fn config() -> KubeletConfig {
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("no API here"))
        });
        let client = kube::Client::new(service, "default");
        let cri = sampan_cri::client::connect_lazy("unix:///nonexistent/cri.sock").unwrap();
        let cri = Arc::new(crate::cri::CriRuntime::new(cri, None));
        KubeletConfig::new("node", client, cri, "/nonexistent", "127.0.0.1".parse().unwrap())
    }
}
