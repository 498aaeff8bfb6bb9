//! What makes a machine a node, the same for a server and for an agent: the container runtime, the network of pods
//! and Services, and the kubelet. It talks to its API over a client, wherever that is.

mod alone;
mod kubelet;
mod lock;
mod reload;
mod runtime;
mod services;

use std::time::Duration;

use anyhow::Result;
use sampan_apiserver::CertifiedKeyPem;
use sampan_kubelet::{Kubelet, ShutdownMode};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::services::ServiceNetwork;
pub(crate) use self::{
    alone::serve_cri,
    lock::{RunLock, is_running},
    runtime::{EmbeddedRuntime, images, runtime},
};
use crate::{config::NodeConfig, server::listen};

/// How long the start waits for the API to know the node.
const REGISTRATION: Duration = Duration::from_secs(2);

/// The API as a node knows it.
pub(crate) struct Api {
    /// As `system:node:NAME`.
    pub(crate) node: kube::Client,
    /// As who may read Services and their endpoints.
    pub(crate) proxy: kube::Client,
    /// What the kubelet shows on its port; another one when it was renewed.
    pub(crate) serving: watch::Receiver<CertifiedKeyPem>,
    /// Whose certificates the kubelet's clients have.
    pub(crate) ca_pem: String,
}

/// A running node.
pub(crate) struct Node {
    kubelet: Kubelet,
    runtime: Option<EmbeddedRuntime>,
    tasks: JoinSet<()>,
    shutdown: CancellationToken,
}

impl Node {
    /// Starts it on a runtime that runs. The node is registered when this returns; Ready follows at once.
    ///
    /// # Errors
    /// When a part does not start. The runtime is stopped then.
    pub(crate) async fn start(
        config: &NodeConfig,
        runtime: Option<EmbeddedRuntime>,
        api: Api,
    ) -> Result<Self> {
        match Self::assemble(config, runtime.as_ref(), api).await {
            Ok((kubelet, tasks, shutdown)) => Ok(Self { kubelet, runtime, tasks, shutdown }),
            Err(error) => {
                if let Some(runtime) = runtime {
                    runtime.stop().await;
                }
                Err(error)
            }
        }
    }

    async fn assemble(
        config: &NodeConfig,
        runtime: Option<&EmbeddedRuntime>,
        api: Api,
    ) -> Result<(Kubelet, JoinSet<()>, CancellationToken)> {
        let built_in = runtime.and_then(|runtime| runtime.network().built_in());
        let services = ServiceNetwork::make(config, built_in).await?;
        let cri = kubelet::cri_client(config, runtime.is_some()).await?;
        let proxy = api.proxy.clone();
        let kubelet = Kubelet::start(kubelet::config(config, api, cri, services.cluster_dns())).await;
        let kubelet = kubelet.map_err(|error| match error {
            sampan_kubelet::Error::Listen { address, source } => {
                listen::explain(&source, address, "--kubelet-port")
            }
            error => anyhow::Error::new(error).context("starting the kubelet"),
        })?;
        // A pod that is created right after finds the node. An API that does not answer yet keeps nothing waiting: static
        // pods run without it.
        if tokio::time::timeout(REGISTRATION, kubelet.registered()).await.is_err() {
            tracing::warn!("the node is not registered yet: the API does not answer");
        }
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(services.run(config.node_name.clone(), proxy, shutdown.clone()));
        Ok((kubelet, tasks, shutdown))
    }

    /// Waits until a part ends that should not.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Err(panic)) => anyhow::anyhow!("a part of the node panicked: {panic}"),
            _ => anyhow::anyhow!("a part of the node ended by itself"),
        }
    }

    /// Stops in reverse order. Pods keep running unless `stop_pods`.
    pub(crate) async fn stop(mut self, stop_pods: bool) {
        let mode = if stop_pods { ShutdownMode::StopPods } else { ShutdownMode::KeepPods };
        self.kubelet.shutdown(mode).await;
        self.shutdown.cancel();
        while self.tasks.join_next().await.is_some() {}
        if let Some(runtime) = self.runtime.take() {
            runtime.stop().await;
        }
    }
}

/// What every process that runs pods begins with: root, a TLS provider, its directories, and the lock on them.
pub(crate) fn prepare(config: &NodeConfig) -> Result<RunLock> {
    anyhow::ensure!(
        rustix::process::geteuid().is_root(),
        "sampan needs root for namespaces, mounts and cgroups: run it with sudo (`sampan doctor` checks the rest)"
    );
    // Without a provider chosen, rustls refuses to work; a second server in one process keeps the first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    runtime::make_directories(config)?;
    RunLock::take(config)
}
