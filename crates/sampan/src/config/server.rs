//! What a server is told beside what every node is: its API, store and admission.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use serde::Deserialize;

use super::{ClusterDns, ConfigFile, NodeConfig, NodeOptions, absolute, first_given, read};

/// Options of `sampan server`, each also a key of the configuration file.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct ServerOptions {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) node: NodeOptions,
    /// Port of the API; 0 takes a free one [default: 6443]
    #[arg(long, value_name = "PORT")]
    pub(crate) https_listen_port: Option<u16>,
    /// Where the administrator's kubeconfig is written, mode 0600 [default: /etc/sampan/kubeconfig]
    #[arg(long, value_name = "PATH")]
    pub(crate) write_kubeconfig: Option<PathBuf>,
    /// An etcd (http:// or https://host:port) instead of the embedded store
    #[arg(long, value_name = "URL")]
    pub(crate) datastore_endpoint: Option<String>,
    /// Admission plugins to run beside those that are on by default
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) enable_admission_plugins: Option<Vec<String>>,
    /// Admission plugins not to run
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) disable_admission_plugins: Option<Vec<String>>,
    /// How many pods are kept that have ended; the oldest beyond them are deleted [default: 12500]
    #[arg(long, value_name = "N")]
    pub(crate) terminated_pod_gc_threshold: Option<usize>,
}

impl ServerOptions {
    /// Reads the configuration file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        read(path)
    }

    /// These options, with those of `base` where nothing was said.
    pub(crate) fn over(self, base: Self) -> Self {
        first_given!(self over base {
            https_listen_port,
            write_kubeconfig,
            datastore_endpoint,
            enable_admission_plugins,
            disable_admission_plugins,
            terminated_pod_gc_threshold,
        } node: self.node.over(base.node))
    }
}

/// What a server does: every option decided.
#[derive(Clone, Debug)]
pub(crate) struct ServerConfig {
    pub(crate) node: NodeConfig,
    pub(crate) https_listen_port: u16,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) datastore_endpoint: Option<String>,
    pub(crate) enable_admission_plugins: Vec<String>,
    pub(crate) disable_admission_plugins: Vec<String>,
    pub(crate) terminated_pod_gc_threshold: usize,
}

impl ServerConfig {
    /// The same, with the file that the options came from.
    pub(crate) fn of_file(mut self, path: Option<PathBuf>) -> Self {
        self.node.file = path
            .map(|path| ConfigFile { path, handlers: |path| Ok(ServerOptions::read(path)?.node.runtime) });
        self
    }
}

impl TryFrom<ServerOptions> for ServerConfig {
    type Error = anyhow::Error;

    fn try_from(options: ServerOptions) -> Result<Self> {
        Ok(Self {
            node: NodeConfig::decide(options.node, ClusterDns::Here)?,
            https_listen_port: options.https_listen_port.unwrap_or(6443),
            kubeconfig: absolute(options.write_kubeconfig, "/etc/sampan/kubeconfig")?,
            datastore_endpoint: options.datastore_endpoint,
            enable_admission_plugins: options.enable_admission_plugins.unwrap_or_default(),
            disable_admission_plugins: options.disable_admission_plugins.unwrap_or_default(),
            terminated_pod_gc_threshold: options
                .terminated_pod_gc_threshold
                .unwrap_or(sampan_controllers::ControllersConfig::default().ended_pods),
        })
    }
}
