//! What makes a machine a node: directories, addresses, ranges, handlers.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use sampan_kubelet::KubeletConfiguration;
use sampan_network::Ipv4Cidr;
use serde::Deserialize;

use super::{DATA_DIR, LogFormat, RUN_DIR, RuntimeOptions, absolute, first_given};

/// Options of `sampan server` and of `sampan agent`, each also a key of the configuration file.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct NodeOptions {
    /// What survives a reboot [default: /var/lib/sampan]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Sockets and namespaces [default: /run/sampan]
    #[arg(long, value_name = "DIR")]
    pub(crate) run_dir: Option<PathBuf>,
    /// Container logs [default: /var/log/pods]
    #[arg(long, value_name = "DIR")]
    pub(crate) log_dir: Option<PathBuf>,
    /// Address that the kubelet, and of a server the API, listens on [default: 0.0.0.0]
    #[arg(long, value_name = "IP")]
    pub(crate) bind_address: Option<IpAddr>,
    /// Port of the kubelet; 0 takes a free one [default: 10250]
    #[arg(long, value_name = "PORT")]
    pub(crate) kubelet_port: Option<u16>,
    /// The node's name [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// The node's address [default: that of the default route]
    #[arg(long, value_name = "IP")]
    pub(crate) node_ip: Option<IpAddr>,
    /// `key=value` labels for the node
    #[arg(long, value_name = "LABEL", value_delimiter = ',')]
    pub(crate) node_labels: Option<Vec<String>>,
    /// Addresses for the pods of all nodes [default: 10.42.0.0/16]
    #[arg(long, value_name = "CIDR")]
    pub(crate) cluster_cidr: Option<String>,
    /// Addresses for the pods of this node, a part of them [default: the first /24]
    #[arg(long, value_name = "CIDR")]
    pub(crate) pod_cidr: Option<String>,
    /// Addresses for Services [default: 10.43.0.0/16]
    #[arg(long, value_name = "CIDR")]
    pub(crate) service_cidr: Option<String>,
    /// The cluster's DNS domain [default: cluster.local]
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) cluster_domain: Option<String>,
    /// The bridge that pods hang on [default: sampan0]
    #[arg(long, value_name = "NAME")]
    pub(crate) bridge: Option<String>,
    /// A directory of CNI configurations: pods get the first network of it instead of the built-in one
    #[arg(long, value_name = "DIR")]
    pub(crate) cni_conf_dir: Option<PathBuf>,
    /// Where CNI plugins are [default: /opt/cni/bin,/usr/lib/cni]
    #[arg(long, value_name = "DIRS", value_delimiter = ',')]
    pub(crate) cni_bin_dir: Option<Vec<PathBuf>>,
    /// The cgroup in which `kubepods` is made [default: /]
    #[arg(long, value_name = "CGROUP")]
    pub(crate) cgroup_root: Option<String>,
    /// How many pods may run here [default: 110]
    #[arg(long, value_name = "N")]
    pub(crate) max_pods: Option<u32>,
    /// Upstream's KubeletConfiguration (kubelet.config.k8s.io/v1beta1); options given here win over it
    #[arg(long, value_name = "FILE")]
    pub(crate) kubelet_config: Option<PathBuf>,
    /// Upstream's CredentialProviderConfig (kubelet.config.k8s.io/v1): programs that give registry credentials
    #[arg(long, value_name = "FILE")]
    pub(crate) image_credential_provider_config: Option<PathBuf>,
    /// Where these programs are
    #[arg(long, value_name = "DIR")]
    pub(crate) image_credential_provider_bin_dir: Option<PathBuf>,
    /// A directory of manifests of static pods, which run even when the API does not
    #[arg(long, value_name = "DIR")]
    pub(crate) pod_manifest_path: Option<PathBuf>,
    /// A CRI runtime (unix:///path) instead of the embedded one
    #[arg(long, value_name = "URL")]
    pub(crate) container_runtime_endpoint: Option<String>,
    /// Registry hosts (host or host:port) that are reached over plain HTTP; loopback always is
    #[arg(long, value_name = "HOSTS", value_delimiter = ',')]
    pub(crate) insecure_registries: Option<Vec<String>>,
    /// Directories with a hosts.toml per registry host: mirrors, certificates, headers [default:
    /// /etc/sampan/certs.d,/etc/containerd/certs.d]
    #[arg(long, value_name = "DIRS", value_delimiter = ',')]
    pub(crate) registry_hosts_dirs: Option<Vec<PathBuf>>,
    /// Stop all pods with their grace periods at the end
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) stop_pods: Option<bool>,
    /// How log lines look [default: text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// Runtime handlers; in the file only
    #[arg(skip)]
    pub(crate) runtime: RuntimeOptions,
}

impl NodeOptions {
    /// These options, with those of `base` where nothing was said. Handlers are only said in files.
    pub(super) fn over(self, base: Self) -> Self {
        first_given!(self over base {
            data_dir,
            run_dir,
            log_dir,
            bind_address,
            kubelet_port,
            node_name,
            node_ip,
            node_labels,
            cluster_cidr,
            pod_cidr,
            service_cidr,
            cluster_domain,
            bridge,
            cni_conf_dir,
            cni_bin_dir,
            cgroup_root,
            max_pods,
            kubelet_config,
            image_credential_provider_config,
            image_credential_provider_bin_dir,
            pod_manifest_path,
            container_runtime_endpoint,
            insecure_registries,
            registry_hosts_dirs,
            stop_pods,
            log_format,
        } runtime: base.runtime)
    }
}

/// Where CNI configurations and plugins are.
#[derive(Clone, Debug)]
pub(crate) struct CniOptions {
    pub(crate) conf_dir: PathBuf,
    pub(crate) bin_dirs: Vec<PathBuf>,
}

/// Who answers the names of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClusterDns {
    /// This node, for all.
    Here,
    /// Whatever is behind the usual address.
    Elsewhere,
}

/// The file that options came from, and how its `runtime` section is read again.
#[derive(Clone, Debug)]
pub(crate) struct ConfigFile {
    pub(crate) path: PathBuf,
    pub(crate) handlers: fn(&Path) -> Result<RuntimeOptions>,
}

/// What a node does: every option decided.
#[derive(Clone, Debug)]
pub(crate) struct NodeConfig {
    /// The configuration file: its handlers are read again when it changes.
    pub(crate) file: Option<ConfigFile>,
    pub(crate) data_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
    pub(crate) log_dir: PathBuf,
    pub(crate) bind_address: IpAddr,
    pub(crate) kubelet_port: u16,
    pub(crate) node_name: String,
    pub(crate) node_ip: IpAddr,
    pub(crate) node_labels: BTreeMap<String, String>,
    /// The range of all pods; this node's own is a part of it.
    pub(crate) cluster_cidr: Ipv4Cidr,
    pub(crate) pod_cidr: Ipv4Cidr,
    pub(crate) service_cidr: Ipv4Cidr,
    pub(crate) cluster_domain: String,
    pub(crate) cluster_dns: ClusterDns,
    pub(crate) bridge: String,
    /// The network is other people's CNI plugins.
    pub(crate) cni: Option<CniOptions>,
    pub(crate) cgroup_root: String,
    pub(crate) max_pods: u32,
    pub(crate) kubelet: KubeletConfiguration,
    pub(crate) static_pod_path: Option<PathBuf>,
    pub(crate) image_credential_provider_config: Option<PathBuf>,
    pub(crate) image_credential_provider_bin_dir: Option<PathBuf>,
    pub(crate) container_runtime_endpoint: Option<String>,
    pub(crate) insecure_registries: Vec<String>,
    pub(crate) registry_hosts_dirs: Vec<PathBuf>,
    pub(crate) stop_pods: bool,
    pub(crate) runtime: RuntimeOptions,
}

impl NodeConfig {
    /// Decides every option.
    ///
    /// # Errors
    /// When a value is wrong; the message names the option and says what it should be.
    pub(super) fn decide(options: NodeOptions, cluster_dns: ClusterDns) -> Result<Self> {
        let text = |value: Option<String>, default: &str| value.unwrap_or_else(|| default.to_owned());
        let kubelet = match &options.kubelet_config {
            Some(path) => KubeletConfiguration::read(path).context("--kubelet-config")?,
            None => KubeletConfiguration::default(),
        };
        let static_pod_path = options
            .pod_manifest_path
            .or_else(|| kubelet.text("staticPodPath").map(Into::into))
            .map(|path| absolute(Some(path), "."))
            .transpose()?;
        let cluster_cidr: Ipv4Cidr =
            text(options.cluster_cidr, "10.42.0.0/16").parse().context("--cluster-cidr")?;
        // One node, one /24, as upstream's controller manager cuts the cluster range.
        let first = || format!("{}/{}", cluster_cidr.network(), cluster_cidr.prefix().max(24));
        let pod_cidr: Ipv4Cidr = options.pod_cidr.unwrap_or_else(first).parse().context("--pod-cidr")?;
        ensure!(
            cluster_cidr.contains(pod_cidr.network()) && pod_cidr.prefix() >= cluster_cidr.prefix(),
            "--pod-cidr {pod_cidr} is no part of --cluster-cidr {cluster_cidr}"
        );
        let service_cidr: Ipv4Cidr =
            text(options.service_cidr, "10.43.0.0/16").parse().context("--service-cidr")?;
        ensure!(
            !service_cidr.contains(cluster_cidr.network()) && !cluster_cidr.contains(service_cidr.network()),
            "--cluster-cidr {cluster_cidr} and --service-cidr {service_cidr} overlap: choose ranges apart"
        );
        // Who listens on one address is reached by that one.
        let bound = options.bind_address.filter(|ip| !ip.is_unspecified());
        let bridge = text(options.bridge, "sampan0");
        ensure!(
            (1..=15).contains(&bridge.len())
                && bridge.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'),
            "--bridge `{bridge}`: an interface name has 1 to 15 letters, digits or `-`"
        );
        let node_name = options.node_name.map_or_else(default_node_name, Ok)?;
        options.runtime.handlers()?;
        options.runtime.platforms()?;
        ensure!(
            sampan_api::names::dns1123_subdomain(&node_name).is_empty(),
            "--node-name `{node_name}`: lower-case letters, digits, `-` and `.`, at most 253"
        );
        let mut node_labels = BTreeMap::new();
        for label in options.node_labels.unwrap_or_default() {
            let Some((key, value)) = label.split_once('=') else {
                bail!("--node-labels `{label}`: write key=value");
            };
            node_labels.insert(key.to_owned(), value.to_owned());
        }
        Ok(Self {
            file: None,
            data_dir: absolute(options.data_dir, DATA_DIR)?,
            run_dir: absolute(options.run_dir, RUN_DIR)?,
            log_dir: absolute(
                options.log_dir.or_else(|| kubelet.text("podLogsDir").map(Into::into)),
                "/var/log/pods",
            )?,
            bind_address: options.bind_address.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
            kubelet_port: options.kubelet_port.or_else(|| kubelet.number("port")).unwrap_or(10250),
            node_name,
            node_ip: options.node_ip.or(bound).unwrap_or_else(default_node_ip),
            node_labels,
            cluster_cidr,
            pod_cidr,
            service_cidr,
            cluster_domain: text(
                options.cluster_domain.or_else(|| kubelet.text("clusterDomain")),
                "cluster.local",
            ),
            cluster_dns,
            bridge,
            cni: cni(options.cni_conf_dir, options.cni_bin_dir)?,
            cgroup_root: text(options.cgroup_root.or_else(|| kubelet.text("cgroupRoot")), "/"),
            max_pods: options.max_pods.or_else(|| kubelet.number("maxPods")).unwrap_or(110),
            static_pod_path,
            image_credential_provider_config: options.image_credential_provider_config,
            image_credential_provider_bin_dir: options.image_credential_provider_bin_dir,
            container_runtime_endpoint: options
                .container_runtime_endpoint
                .or_else(|| kubelet.text("containerRuntimeEndpoint")),
            kubelet,
            insecure_registries: options.insecure_registries.unwrap_or_default(),
            registry_hosts_dirs: options.registry_hosts_dirs.unwrap_or_else(registry_hosts_dirs),
            stop_pods: options.stop_pods.unwrap_or(false),
            runtime: options.runtime,
        })
    }
}

fn cni(conf_dir: Option<PathBuf>, bin_dirs: Option<Vec<PathBuf>>) -> Result<Option<CniOptions>> {
    let Some(conf_dir) = conf_dir else {
        ensure!(bin_dirs.is_none(), "--cni-bin-dir says nothing without --cni-conf-dir");
        return Ok(None);
    };
    let usual = || vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()];
    let bin_dirs = bin_dirs.unwrap_or_else(usual).into_iter().map(|dir| absolute(Some(dir), ""));
    Ok(Some(CniOptions {
        conf_dir: absolute(Some(conf_dir), "")?,
        bin_dirs: bin_dirs.collect::<Result<_>>()?,
    }))
}

/// Where administrators say things about registries: to us, and to containerd.
pub(crate) fn registry_hosts_dirs() -> Vec<PathBuf> {
    vec!["/etc/sampan/certs.d".into(), "/etc/containerd/certs.d".into()]
}

/// The host's name in lower case, as upstream's kubelet takes it.
fn default_node_name() -> Result<String> {
    let name = rustix::system::uname().nodename().to_string_lossy().trim().to_lowercase();
    ensure!(!name.is_empty(), "this host has no name: give --node-name");
    Ok(name)
}

/// The address from which a packet to the outside would leave; no packet is sent.
fn default_node_ip() -> IpAddr {
    let probe = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        Ok(socket.local_addr()?.ip())
    };
    probe().ok().filter(|ip| !ip.is_unspecified()).unwrap_or(Ipv4Addr::LOCALHOST.into())
}
