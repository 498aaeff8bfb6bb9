//! One server: its parts started in order, wired over their seams, and stopped in reverse.
//!
//! The order is what makes "Ready within a second" true: what waits for nobody (certificates, the store, the
//! runtime with its living shims) starts first and at the same time; the kubelet starts as soon as there is an
//! API and a runtime; scheduler and controllers need only the API.

mod alone;
mod digests;
mod listen;
mod lock;
mod parts;
mod reload;
mod services;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use sampan_apiserver::{ApiServer, Pki, UserInfo};
use sampan_kubelet::{Kubelet, ShutdownMode};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub(crate) use self::{alone::serve_cri, lock::is_running, parts::images};
use self::{lock::RunLock, parts::EmbeddedRuntime, services::ServiceNetwork};
use crate::config::ServerConfig;

/// A running server.
pub(crate) struct Server {
    api: Arc<ApiServer>,
    kubelet: Kubelet,
    runtime: Option<EmbeddedRuntime>,
    /// The API's own tasks: they end after everything that talks to it.
    api_tasks: JoinSet<Result<()>>,
    api_shutdown: CancellationToken,
    /// Scheduler and controllers.
    tasks: JoinSet<Result<()>>,
    shutdown: CancellationToken,
    address: SocketAddr,
    kubeconfig: PathBuf,
    /// Held until all is stopped.
    _lock: RunLock,
}

impl Server {
    /// Starts everything. The node is registered when this returns; Ready follows at once.
    pub(crate) async fn start(config: ServerConfig) -> Result<Self> {
        anyhow::ensure!(
            rustix::process::geteuid().is_root(),
            "sampan needs root for namespaces, mounts and cgroups: run it with sudo (`sampan doctor` checks the rest)"
        );
        // Without a provider chosen, rustls refuses to work; a second server in one process keeps the first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        parts::make_directories(&config)?;
        let lock = RunLock::take(&config)?;
        let listener = listen::api(&config).await?;
        let address = listener.local_addr().context("the API's address")?;

        let (api, runtime) = tokio::join!(parts::api(&config, address), parts::runtime(&config));
        // A server that cannot start takes away again what it made for pods, unless pods of an earlier one use it.
        let (api, mut runtime) = match (api, runtime) {
            (Ok(api), Ok(runtime)) => (api, runtime),
            (Err(error), runtime) => {
                if let Ok(Some(runtime)) = runtime {
                    runtime.stop().await;
                }
                return Err(error);
            }
            (_, Err(error)) => return Err(error),
        };
        let started = Self::assemble(config, lock, listener, api, &mut runtime).await;
        if let Some(runtime) = runtime {
            runtime.stop().await;
        }
        started
    }

    /// Starts what stands on the API and the runtime, and takes the runtime once nothing can fail any more.
    async fn assemble(
        config: ServerConfig,
        lock: RunLock,
        listener: TcpListener,
        (api, pki): (Arc<ApiServer>, Pki),
        runtime: &mut Option<EmbeddedRuntime>,
    ) -> Result<Self> {
        let address = listener.local_addr().context("the API's address")?;
        let (shutdown, api_shutdown) = (CancellationToken::new(), CancellationToken::new());
        let mut api_tasks = JoinSet::new();
        let serving = api.clone().serve(listener, api_shutdown.clone());
        api_tasks.spawn(async move { serving.await.context("serving the API") });

        let built_in = runtime.as_ref().and_then(|runtime| runtime.network().built_in());
        let services = ServiceNetwork::make(&config, built_in).await?;
        let node = UserInfo::node(&config.node_name);
        let cri = parts::cri_client(&config, runtime.is_some()).await?;
        let kubelet = Kubelet::start(parts::kubelet_config(
            &config,
            &pki,
            api.client(node),
            cri,
            services.cluster_dns(),
        ))
        .await
        .map_err(|error| match error {
            sampan_kubelet::Error::Listen { address, source } => {
                listen::explain(&source, address, "--kubelet-port")
            }
            error => anyhow::Error::new(error).context("starting the kubelet"),
        })?;

        let mut tasks = JoinSet::new();
        let scheduler = sampan_scheduler::run(
            api.client(UserInfo::new("system:kube-scheduler", ["system:authenticated"])),
            shutdown.clone(),
        );
        tasks.spawn(async move { scheduler.await.context("scheduler") });
        let controllers = sampan_controllers::run(
            api.client(UserInfo::new(
                "system:kube-controller-manager",
                ["system:masters", "system:authenticated"],
            )),
            sampan_controllers::ControllersConfig { ca_pem: pki.ca_pem().to_owned() },
            shutdown.clone(),
        );
        tasks.spawn(async move { controllers.await.context("controllers") });

        let proxy = UserInfo::new("system:kube-proxy", ["system:masters", "system:authenticated"]);
        let following = services.run(config.node_name.clone(), api.client(proxy), shutdown.clone());
        tasks.spawn(async move {
            following.await;
            Ok(())
        });

        parts::write_kubeconfig(&config, &pki, address)?;
        let kubeconfig = config.kubeconfig.clone();
        Ok(Self {
            api,
            kubelet,
            runtime: runtime.take(),
            api_tasks,
            api_shutdown,
            tasks,
            shutdown,
            address,
            kubeconfig,
            _lock: lock,
        })
    }

    /// A client with all rights, in memory.
    pub(crate) fn admin_client(&self) -> kube::Client {
        self.api.client(UserInfo::admin())
    }

    /// Where the API listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the administrator's kubeconfig was written.
    pub(crate) fn kubeconfig(&self) -> &PathBuf {
        &self.kubeconfig
    }

    /// Waits until a part ends that should not: an error, or a panic.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        let ended = tokio::select! {
            Some(ended) = self.tasks.join_next() => ended,
            Some(ended) = self.api_tasks.join_next() => ended,
        };
        match ended {
            Ok(Ok(())) => anyhow::anyhow!("a part of the server ended by itself"),
            Ok(Err(error)) => error,
            Err(panic) => anyhow::anyhow!("a part of the server panicked: {panic}"),
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
        self.api_shutdown.cancel();
        while self.api_tasks.join_next().await.is_some() {}
    }
}
