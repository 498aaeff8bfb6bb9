//! One server: the API, scheduler and controllers, and a node of its own; started in order, wired over their seams,
//! and stopped in reverse.
//!
//! The order is what makes "Ready within a second" true: what waits for nobody (certificates, the store, the
//! runtime with its living shims) starts first and at the same time; the node starts as soon as there is an
//! API and a runtime; scheduler and controllers need only the API.

mod api;
mod digests;
pub(crate) mod listen;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use sampan_apiserver::{ApiServer, Pki, UserInfo};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    config::ServerConfig,
    node::{self, EmbeddedRuntime, Node, RunLock},
};

/// A running server.
pub(crate) struct Server {
    api: Arc<ApiServer>,
    node: Node,
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
        let lock = node::prepare(&config.node)?;
        let listener = listen::api(&config).await?;
        let address = listener.local_addr().context("the API's address")?;
        let (api, runtime) = tokio::join!(api::start(&config, address), node::runtime(&config.node));
        // A server that cannot start takes away again what it made for pods, unless pods of an earlier one use it.
        let (api, runtime) = match (api, runtime) {
            (Ok(api), Ok(runtime)) => (api, runtime),
            (Err(error), runtime) => {
                if let Ok(Some(runtime)) = runtime {
                    runtime.stop().await;
                }
                return Err(error);
            }
            (_, Err(error)) => return Err(error),
        };
        Self::assemble(config, lock, listener, api, runtime).await
    }

    /// Starts what stands on the API and the runtime.
    async fn assemble(
        config: ServerConfig,
        lock: RunLock,
        listener: TcpListener,
        (api, pki): (Arc<ApiServer>, Pki),
        runtime: Option<EmbeddedRuntime>,
    ) -> Result<Self> {
        let address = listener.local_addr().context("the API's address")?;
        let (shutdown, api_shutdown) = (CancellationToken::new(), CancellationToken::new());
        let mut api_tasks = JoinSet::new();
        let serving = api.clone().serve(listener, api_shutdown.clone());
        api_tasks.spawn(async move { serving.await.context("serving the API") });

        let as_node = node::Api {
            node: api.client(UserInfo::node(&config.node.node_name)),
            proxy: api.client(UserInfo::new("system:kube-proxy", ["system:masters", "system:authenticated"])),
            serving: watch::channel(pki.kubelet_serving().clone()).1,
            ca_pem: pki.ca_pem().to_owned(),
        };
        let node = Node::start(&config.node, runtime, as_node).await?;
        if let Err(error) = api::write_kubeconfig(&config, &pki, address) {
            node.stop(false).await;
            return Err(error);
        }

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
            sampan_controllers::ControllersConfig {
                ca_pem: pki.ca_pem().to_owned(),
                ended_pods: config.terminated_pod_gc_threshold,
                ..Default::default()
            },
            shutdown.clone(),
        );
        tasks.spawn(async move { controllers.await.context("controllers") });

        let kubeconfig = config.kubeconfig.clone();
        Ok(Self { api, node, api_tasks, api_shutdown, tasks, shutdown, address, kubeconfig, _lock: lock })
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
            error = self.node.failed() => return error,
        };
        match ended {
            Ok(Ok(())) => anyhow::anyhow!("a part of the server ended by itself"),
            Ok(Err(error)) => error,
            Err(panic) => anyhow::anyhow!("a part of the server panicked: {panic}"),
        }
    }

    /// Stops in reverse order. Pods keep running unless `stop_pods`.
    pub(crate) async fn stop(mut self, stop_pods: bool) {
        self.node.stop(stop_pods).await;
        self.shutdown.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.api_shutdown.cancel();
        while self.api_tasks.join_next().await.is_some() {}
    }
}
