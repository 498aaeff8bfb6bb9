//! What an agent is told beside what every node is: whose node it is.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde::Deserialize;

use super::{ClusterDns, ConfigFile, NodeConfig, NodeOptions, absolute, first_given, read};

/// Options of `sampan agent`, each also a key of the configuration file.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct AgentOptions {
    /// The cluster and who this node is there (`sampan kubeconfig --node NAME` on the server makes it)
    #[arg(long, value_name = "PATH")]
    pub(crate) kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) node: NodeOptions,
}

impl AgentOptions {
    /// Reads the configuration file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        read(path)
    }

    /// These options, with those of `base` where nothing was said.
    pub(crate) fn over(self, base: Self) -> Self {
        first_given!(self over base { kubeconfig } node: self.node.over(base.node))
    }
}

/// What an agent does: every option decided.
#[derive(Clone, Debug)]
pub(crate) struct AgentConfig {
    pub(crate) node: NodeConfig,
    pub(crate) kubeconfig: PathBuf,
}

impl AgentConfig {
    /// The same, with the file that the options came from.
    pub(crate) fn of_file(mut self, path: Option<PathBuf>) -> Self {
        self.node.file =
            path.map(|path| ConfigFile { path, handlers: |path| Ok(AgentOptions::read(path)?.node.runtime) });
        self
    }
}

impl TryFrom<AgentOptions> for AgentConfig {
    type Error = anyhow::Error;

    fn try_from(options: AgentOptions) -> Result<Self> {
        let kubeconfig = options
            .kubeconfig
            .context("--kubeconfig PATH: an agent needs a cluster; on the server `sampan kubeconfig --node NAME` makes it")?;
        Ok(Self {
            kubeconfig: absolute(Some(kubeconfig), "")?,
            node: NodeConfig::decide(options.node, ClusterDns::Elsewhere)?,
        })
    }
}
