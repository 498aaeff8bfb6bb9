//! A node of somebody else's cluster: of a sampan server on another machine, or of an upstream control plane.

mod identity;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use sampan_apiserver::pki;

use crate::{
    config::AgentConfig,
    node::{self, Api, Node, RunLock},
};

/// How often an API server that does not answer is asked who it is.
const GREETING: Duration = Duration::from_secs(5);

/// A running agent.
pub(crate) struct Agent {
    node: Node,
    _lock: RunLock,
}

impl Agent {
    /// Starts it. The node is registered when this returns; Ready follows at once.
    pub(crate) async fn start(config: AgentConfig) -> Result<Self> {
        let lock = node::prepare(&config.node)?;
        let api = api(&config).await?;
        let runtime = node::runtime(&config.node).await?;
        Ok(Self { node: Node::start(&config.node, runtime, api).await?, _lock: lock })
    }

    /// Waits until a part ends that should not.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        self.node.failed().await
    }

    /// Stops in reverse order. Pods keep running unless `stop_pods`.
    pub(crate) async fn stop(self, stop_pods: bool) {
        self.node.stop(stop_pods).await;
    }
}

/// The cluster that the kubeconfig names, with this node's identity in it.
async fn api(config: &AgentConfig) -> Result<Api> {
    let path = &config.kubeconfig;
    let reading = || format!("--kubeconfig {}", path.display());
    let kubeconfig = Kubeconfig::read_from(path).with_context(reading)?;
    let options = KubeConfigOptions::default();
    let connection = kube::Config::from_custom_kubeconfig(kubeconfig, &options);
    let connection = connection.await.with_context(reading)?;
    let ca_pem = identity::authority(&connection).with_context(reading)?;
    let identity = identity::certificate(&connection).with_context(reading)?;
    let name = &config.node.node_name;
    if let Some(user) = pki::node_of(&identity.certificate) {
        ensure!(
            user == *name,
            "{}: its certificate is that of node `{user}`, this node is `{name}`: give --node-name {user}, or a kubeconfig for `{name}`",
            reading()
        );
    }
    // Who made the certificate for both directions meant it for the kubelet's port too. Others, as upstream's
    // tools make them, are for clients only: then the kubelet shows one of its own, as upstream's does.
    let serving = if pki::is_for_servers(&identity.certificate) {
        identity
    } else {
        pki::self_signed(&config.node.data_dir.join("pki"), name, config.node.node_ip)
            .context("certificates")?
    };
    let client = kube::Client::try_from(connection).with_context(reading)?;
    tokio::spawn(greet(client.clone(), name.clone()));
    Ok(Api { node: client.clone(), proxy: client, serving, ca_pem })
}

/// Says which cluster it is, as soon as its API server answers. Nothing waits for it: what runs here runs without.
async fn greet(client: kube::Client, node: String) {
    let mut told = false;
    loop {
        match client.apiserver_version().await {
            Ok(version) => {
                tracing::info!(server = version.git_version, node, "joining the cluster");
                return;
            }
            Err(error) if !told => {
                told = true;
                tracing::warn!(%error, "the API server does not answer yet: this node runs what it has");
            }
            Err(_) => {}
        }
        tokio::time::sleep(GREETING).await;
    }
}
