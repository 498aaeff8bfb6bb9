//! What the runtime says about one pod: its sandboxes and containers. This, and not what the kubelet did
//! before, is what decisions are made from: so a restart of the daemon changes nothing.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerUser, LinuxContainerUser};
use sampan_cri::v1;
use tonic::Status;

use crate::clock::from_cri;
use crate::cri::ContainerRuntime;
use crate::labels;
use crate::status::termination_message;

/// A container's state in the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Made, never started: it moves on when it is started, which only happens right after its creation.
    Created,
    /// Its process runs; it moves on when the process ends.
    Running,
    /// Its process ended; final.
    Exited,
    /// The runtime lost it; treated as ended, and killed before it is replaced.
    Unknown,
}

/// One container, running or not.
#[derive(Clone, Debug)]
pub struct RuntimeContainer {
    /// The runtime's id.
    pub id: String,
    /// The sandbox it is in.
    pub sandbox_id: String,
    /// The name in the pod's spec.
    pub name: String,
    /// How often it had been restarted before.
    pub restart_count: u32,
    /// See [`labels::container_hash`].
    pub hash: String,
    /// Its state.
    pub state: State,
    /// Creation.
    pub created_at: Option<Timestamp>,
    /// Start.
    pub started_at: Option<Timestamp>,
    /// End.
    pub finished_at: Option<Timestamp>,
    /// Exit code, once it ended.
    pub exit_code: i32,
    /// The image's name as the runtime reports it.
    pub image: String,
    /// The reference with digest, when there is one.
    pub image_ref: String,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, …
    pub reason: String,
    /// Runtime's message and termination message (ENV-44).
    pub message: String,
    /// Who its first process ran as.
    pub user: Option<ContainerUser>,
    /// The signal that stops it, such as `SIGTERM`, when the runtime says so (HOOK-32).
    pub stop_signal: Option<String>,
    /// The absolute path of its log.
    pub log_path: String,
    /// Whether it was stopped so that another run takes its place: its end is then not the container's.
    pub replaced: bool,
    /// The container's labels and annotations, for what the spec no longer says (HOOK-36).
    pub annotations: HashMap<String, String>,
}

/// One sandbox.
#[derive(Clone, Debug)]
pub struct RuntimeSandbox {
    /// The runtime's id.
    pub id: String,
    /// Whether it can hold containers.
    pub ready: bool,
    /// How many were made before it.
    pub attempt: u32,
    /// Creation.
    pub created_at: Option<Timestamp>,
    /// Its addresses, the primary one first; empty on the host's network.
    pub ips: Vec<String>,
    /// Whether it is on the host's network.
    pub host_network: bool,
    /// The handler it runs with; empty for the runtime's default.
    pub runtime_handler: String,
}

/// A pod in the runtime.
#[derive(Clone, Debug, Default)]
pub struct RuntimePod {
    /// Newest first.
    pub sandboxes: Vec<RuntimeSandbox>,
    /// Newest first.
    pub containers: Vec<RuntimeContainer>,
}

impl RuntimePod {
    /// The newest sandbox when it is usable.
    #[must_use]
    pub fn ready_sandbox(&self) -> Option<&RuntimeSandbox> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }

    /// The newest container called `name`.
    #[must_use]
    pub fn container(&self, name: &str) -> Option<&RuntimeContainer> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// The newest container called `name` in the newest sandbox: init containers run again in a new one.
    #[must_use]
    pub fn container_in_sandbox(&self, name: &str) -> Option<&RuntimeContainer> {
        let sandbox = &self.sandboxes.first()?.id;
        self.containers.iter().find(|container| container.name == name && container.sandbox_id == *sandbox)
    }

    /// Whether a container has ended only so that another run takes its place.
    #[must_use]
    pub fn is_replacing(&self) -> bool {
        let newest =
            |run: &RuntimeContainer| self.container(&run.name).is_some_and(|newest| newest.id == run.id);
        self.containers.iter().any(|run| run.replaced && run.state == State::Exited && newest(run))
    }

    /// Containers that have a process.
    pub fn running(&self) -> impl Iterator<Item = &RuntimeContainer> {
        self.containers.iter().filter(|container| matches!(container.state, State::Running | State::Unknown))
    }

    /// Asks the runtime for everything about the pod `uid`. Ended containers do not change any more: they are
    /// taken over from `self`.
    ///
    /// # Errors
    /// The first CRI error; `self` is then unchanged.
    pub async fn refresh(&mut self, cri: &Arc<dyn ContainerRuntime>, uid: &str) -> Result<(), Status> {
        let selector = HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]);
        let (sandboxes, containers) = tokio::try_join!(
            cri.list_pod_sandboxes(v1::PodSandboxFilter {
                label_selector: selector.clone(),
                ..Default::default()
            }),
            cri.list_containers(v1::ContainerFilter { label_selector: selector, ..Default::default() }),
        )?;
        let sandbox_statuses = sandboxes.into_iter().map(|sandbox| {
            let known = self
                .sandboxes
                .iter()
                .find(|known| known.id == sandbox.id && !known.ready && !is_ready(sandbox.state))
                .cloned();
            async move {
                match known {
                    Some(known) => Ok(Some(known)),
                    None => found(cri.pod_sandbox_status(&sandbox.id).await.map(sandbox_from_status)),
                }
            }
        });
        let container_statuses = containers.into_iter().map(|container| {
            let known = self
                .containers
                .iter()
                .find(|known| known.id == container.id && known.state == State::Exited)
                .cloned();
            async move {
                match known {
                    Some(known) => Ok(Some(known)),
                    None => {
                        let status = cri.container_status(&container.id).await;
                        found(status.map(|status| container_from_status(status, &container.pod_sandbox_id)))
                    }
                }
            }
        });
        let (sandboxes, containers) = tokio::try_join!(
            futures::future::try_join_all(sandbox_statuses),
            futures::future::try_join_all(container_statuses),
        )?;
        self.sandboxes = sandboxes.into_iter().flatten().collect();
        self.containers = containers.into_iter().flatten().collect();
        self.sort();
        Ok(())
    }

    fn sort(&mut self) {
        // By number first: the clock may have been set back between two runs.
        self.sandboxes.sort_by_key(|sandbox| std::cmp::Reverse((sandbox.attempt, sandbox.created_at)));
        self.containers
            .sort_by_key(|container| std::cmp::Reverse((container.restart_count, container.created_at)));
    }
}

/// What is gone between the listing and the question is simply not there.
fn found<T>(result: Result<T, Status>) -> Result<Option<T>, Status> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

fn is_ready(state: i32) -> bool {
    state == v1::PodSandboxState::SandboxReady as i32
}

fn sandbox_from_status(status: v1::PodSandboxStatus) -> RuntimeSandbox {
    let network = status.network.unwrap_or_default();
    let ips = std::iter::once(network.ip)
        .chain(network.additional_ips.into_iter().map(|ip| ip.ip))
        .filter(|ip| !ip.is_empty())
        .collect();
    let mode = status
        .linux
        .and_then(|linux| linux.namespaces)
        .and_then(|namespaces| namespaces.options)
        .map(|options| options.network);
    RuntimeSandbox {
        id: status.id,
        ready: is_ready(status.state),
        attempt: status.metadata.map(|metadata| metadata.attempt).unwrap_or_default(),
        created_at: from_cri(status.created_at),
        ips,
        host_network: mode == Some(v1::NamespaceMode::Node as i32),
        runtime_handler: status.runtime_handler,
    }
}

fn container_from_status(status: v1::ContainerStatus, sandbox_id: &str) -> RuntimeContainer {
    let state = match v1::ContainerState::try_from(status.state) {
        Ok(v1::ContainerState::ContainerCreated) => State::Created,
        Ok(v1::ContainerState::ContainerRunning) => State::Running,
        Ok(v1::ContainerState::ContainerExited) => State::Exited,
        _ => State::Unknown,
    };
    let message =
        if state == State::Exited { termination_message::compose(&status) } else { status.message.clone() };
    let annotation = |key: &str| status.annotations.get(key).cloned();
    let stop_signal = signal_name(status.stop_signal());
    let metadata = status.metadata.unwrap_or_default();
    let name = status.labels.get(labels::CONTAINER_NAME).cloned().unwrap_or(metadata.name);
    RuntimeContainer {
        id: status.id,
        sandbox_id: sandbox_id.to_owned(),
        name,
        restart_count: annotation(labels::RESTART_COUNT)
            .and_then(|count| count.parse().ok())
            .unwrap_or(metadata.attempt),
        hash: annotation(labels::CONTAINER_HASH).unwrap_or_default(),
        state,
        created_at: from_cri(status.created_at),
        started_at: from_cri(status.started_at),
        finished_at: from_cri(status.finished_at),
        exit_code: status.exit_code,
        image: status.image.map(|image| image.image).unwrap_or_default(),
        image_ref: if status.image_ref.is_empty() { status.image_id } else { status.image_ref },
        reason: status.reason,
        message,
        user: status.user.and_then(|user| user.linux).map(container_user),
        stop_signal,
        log_path: status.log_path,
        replaced: false,
        annotations: status.annotations,
    }
}

/// A signal as Kubernetes writes it: `SIGRTMIN+3` for the CRI's `SIGRTMINPLUS3`.
fn signal_name(signal: v1::Signal) -> Option<String> {
    (signal != v1::Signal::RuntimeDefault)
        .then(|| signal.as_str_name().replace("PLUS", "+").replace("MINUS", "-"))
}

fn container_user(user: v1::LinuxContainerUser) -> ContainerUser {
    ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: user.uid,
            gid: user.gid,
            supplemental_groups: (!user.supplemental_groups.is_empty()).then_some(user.supplemental_groups),
        }),
    }
}

/// The greatest restart count that log files of the container speak of, plus one: after a reboot the runtime
/// may have forgotten the containers, but their logs are still there (POD-54).
#[must_use]
pub fn restart_count_from_logs(container_log_dir: &Path) -> u32 {
    let Ok(entries) = std::fs::read_dir(container_log_dir) else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.split('.').next()?.parse::<u32>().ok())
        .max()
        .map_or(0, |count| count + 1)
}
