//! Start and stop of the whole kubelet.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sampan_cri::v1;
use tokio::task::JoinHandle;

use crate::cgroups::PodCgroups;
use crate::config::{KubeletConfig, ShutdownMode};
use crate::context::NodeContext;
use crate::cri::Measured;
use crate::error::Error;
use crate::events::EventRecorder;
use crate::images::{Images, collect};
use crate::metrics::Metrics;
use crate::node::admission::Admitted;
use crate::node::capacity;
use crate::objects::Objects;
use crate::pods::workers::Workers;
use crate::pods::{relist, source};
use crate::server;
use crate::shutdown::inhibitor;
use crate::static_pods::mirror::Mirrors;
use crate::status::writer::StatusWriter;
use crate::user_namespaces::UserNamespaces;
use crate::volumes::Removals;
use crate::{eviction, log_rotation, node, static_pods};

/// How long a stop waits for pods that were deleted just before.
const REMOVALS: Duration = Duration::from_secs(2);

/// A running kubelet. Dropping it stops its tasks; pods keep running.
pub struct Kubelet {
    ctx: Arc<NodeContext>,
    workers: Workers,
    address: Option<SocketAddr>,
    registered: tokio::sync::watch::Receiver<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Kubelet {
    /// Starts the kubelet: it returns when everything is under way, not when the node is Ready.
    ///
    /// # Errors
    /// A directory that cannot be made, a runtime that does not answer, a port or certificate that cannot be
    /// used.
    pub async fn start(mut config: KubeletConfig) -> Result<Self, Error> {
        let metrics = Metrics::new(&config.node_name);
        config.cri = Arc::new(Measured::new(config.cri, metrics.containers.operations.clone()));
        for dir in [config.data_dir.join("pods"), config.log_dir.clone()] {
            std::fs::create_dir_all(&dir).map_err(|source| Error::Directory { path: dir, source })?;
        }
        let version =
            config.cri.version().await.map_err(|source| Error::Runtime { call: "Version", source })?;
        if let Some(pod_cidr) = config.pod_cidr.clone()
            && let Err(status) = config.cri.update_pod_cidr(pod_cidr).await
        {
            // Runtimes that get their addresses elsewhere need not do this.
            tracing::debug!(%status, "UpdateRuntimeConfig");
        }
        // Runtimes older than this call say nothing; then it is cgroupfs, as far as anybody can tell.
        let systemd_cgroups = config.cri.runtime_config().await.is_ok_and(|answer| {
            answer.linux.is_some_and(|linux| linux.cgroup_driver == v1::CgroupDriver::Systemd as i32)
        });
        let images = Images::new(&config.images, &config.data_dir, config.clock.clone())
            .map_err(|reason| Error::Config { reason })?;
        images.access.settle(&*config.cri).await;
        let cgroups = PodCgroups::new(&config, systemd_cgroups);
        if config.single_process_oom_kill == Some(false) && !cgroups.is_v2() {
            let reason = "singleProcessOOMKill: must not be false on cgroup v1".to_owned();
            return Err(Error::Config { reason });
        }
        let (registering, registered) = tokio::sync::watch::channel(false);
        let mut tasks = Vec::new();
        let (recorder, task) =
            EventRecorder::start(config.client.clone(), &config.node_name, config.clock.clone());
        tasks.push(task);
        let (objects, task) = Objects::start(config.client.clone());
        tasks.push(task);
        let resources = capacity::capacity(&config);
        let (room, room_wanted) = collect::RoomRequests::new();
        let ctx = Arc::new(NodeContext {
            recorder,
            status: StatusWriter::new(config.client.clone(), metrics.pods.status_sync.clone()),
            metrics,
            mirrors: Mirrors::default(),
            admitted: Admitted::default(),
            pressure: tokio::sync::watch::Sender::default(),
            shutting_down: tokio::sync::watch::Sender::default(),
            objects,
            images,
            room,
            restarts: NodeContext::new_restart_backoff(&config),
            runtime_name: version.runtime_name,
            systemd_cgroups,
            cgroups,
            removals: Removals::default(),
            user_namespaces: UserNamespaces::read(
                std::path::Path::new("/etc"),
                &config.data_dir.join("pods"),
                config.max_pods,
                config.ids_per_pod,
            ),
            started: config.clock.now(),
            memory_capacity: capacity::memory_bytes(),
            allocatable: capacity::allocatable(&config, &resources),
            host_ips: config.node_ips().iter().map(ToString::to_string).collect(),
            config,
        });
        let enforced = ctx.config.enforce_node_allocatable.iter().any(|what| what == "pods");
        ctx.cgroups.set_up(&capacity::unreserved(&ctx.config, &resources), enforced);
        let workers = Workers::new(Arc::clone(&ctx));
        let address = match server::start(&ctx, &workers).await? {
            Some((address, task)) => {
                tasks.push(task);
                Some(address)
            }
            None => None,
        };
        let port = address.map_or(10250, |address| address.port());
        tasks.push(tokio::spawn(node::keep_registered(Arc::clone(&ctx), port, registering)));
        tasks.push(tokio::spawn(node::renew(Arc::clone(&ctx))));
        if let Some(path) = ctx.config.static_pod_path.clone() {
            let (ready, read) = tokio::sync::oneshot::channel();
            tasks.push(tokio::spawn(static_pods::run(Arc::clone(&ctx), workers.clone(), path, ready)));
            // What is nobody's is only known once these are.
            let _ = read.await;
        }
        tasks.push(tokio::spawn(static_pods::mirror::run(Arc::clone(&ctx), workers.clone())));
        tasks.push(tokio::spawn(source::watch_pods(Arc::clone(&ctx), workers.clone())));
        tasks.push(tokio::spawn(relist::watch_runtime(Arc::clone(&ctx), workers.clone())));
        tasks.push(tokio::spawn(collect::run(Arc::clone(&ctx), workers.clone(), room_wanted)));
        tasks.push(tokio::spawn(eviction::run(Arc::clone(&ctx), workers.clone())));
        tasks.push(tokio::spawn(log_rotation::run(Arc::clone(&ctx))));
        if ctx.config.inhibit_shutdown && !ctx.config.shutdown.is_empty() {
            tasks.push(tokio::spawn(inhibitor::run(Arc::clone(&ctx), workers.clone())));
        }
        Ok(Self { ctx, workers, address, registered, tasks })
    }

    /// Waits until the API server knows the node.
    pub async fn registered(&self) {
        // Without the task that registers there is nothing to wait for.
        let _ = self.registered.clone().wait_for(|registered| *registered).await;
    }

    /// Where the HTTPS port is, when there is one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Stops the kubelet; with [`ShutdownMode::StopPods`] after all pods were terminated.
    pub async fn shutdown(self, mode: ShutdownMode) {
        if mode == ShutdownMode::StopPods {
            self.workers.stop_all().await;
        }
        self.workers.finish_removals(REMOVALS).await;
        self.ctx.cgroups.tear_down();
        // Dropping aborts the tasks.
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.workers.halt();
        for task in &self.tasks {
            task.abort();
        }
    }
}
