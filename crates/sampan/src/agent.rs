//! A node of somebody else's cluster: of a sampan server on another machine, or of an upstream control plane.

mod client;
mod identity;
mod renewal;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use sampan_apiserver::{CertifiedKeyPem, pki};
use tokio::{sync::watch, task::JoinSet};

use self::{client::RenewedClient, renewal::Purpose};
use crate::{
    config::AgentConfig,
    node::{self, Api, Node, RunLock},
};

/// How often an API server that does not answer is asked who it is.
const GREETING: Duration = Duration::from_secs(5);

/// A running agent.
pub(crate) struct Agent {
    node: Node,
    /// Those who renew its certificates; they end with it.
    _renewals: JoinSet<()>,
    _lock: RunLock,
}

impl Agent {
    /// Starts it. The node is registered when this returns; Ready follows at once.
    pub(crate) async fn start(config: AgentConfig) -> Result<Self> {
        let lock = node::prepare(&config.node)?;
        let mut renewals = JoinSet::new();
        let api = api(&config, &mut renewals).await?;
        let runtime = node::runtime(&config.node).await?;
        Ok(Self { node: Node::start(&config.node, runtime, api).await?, _renewals: renewals, _lock: lock })
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

/// The cluster that the kubeconfig names, with this node's identity in it, which is renewed by `renewals`.
async fn api(config: &AgentConfig, renewals: &mut JoinSet<()>) -> Result<Api> {
    let path = &config.kubeconfig;
    let reading = || format!("--kubeconfig {}", path.display());
    let kubeconfig = Kubeconfig::read_from(path).with_context(reading)?;
    let options = KubeConfigOptions::default();
    let connection = kube::Config::from_custom_kubeconfig(kubeconfig, &options);
    let mut connection = connection.await.with_context(reading)?;
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
    let keys = config.node.data_dir.join("pki");
    let for_servers = pki::is_for_servers(&identity.certificate);
    let current = renewal::latest(Purpose::Client, &keys, identity.clone());
    identity::set(&mut connection, &current);
    // Who made the certificate for both directions meant it for the kubelet's port too. Others, as upstream's
    // tools make them, are for clients only: then the kubelet shows one of its own, as upstream's does.
    let serving = match for_servers {
        true => renewal::latest(Purpose::Serving, &keys, identity),
        false => pki::self_signed(&keys, name, config.node.node_ip).context("certificates")?,
    };
    let renewed = RenewedClient::new(kube::Client::try_from(connection.clone()).with_context(reading)?);
    let client = renewed.client();
    let another = move |pair: &CertifiedKeyPem| {
        let mut connection = connection.clone();
        identity::set(&mut connection, pair);
        renewed.renew(kube::Client::try_from(connection).context("the new certificate")?);
        Ok(())
    };
    renewals.spawn(renewal::keep(Purpose::Client, current, keys.clone(), client.clone(), another));
    let (show, shown) = watch::channel(serving.clone());
    if for_servers {
        let show = move |pair: &CertifiedKeyPem| {
            show.send_replace(pair.clone());
            Ok(())
        };
        renewals.spawn(renewal::keep(Purpose::Serving, serving, keys, client.clone(), show));
    }
    tokio::spawn(greet(client.clone(), name.clone()));
    Ok(Api { node: client.clone(), proxy: client, serving: shown, ca_pem })
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
