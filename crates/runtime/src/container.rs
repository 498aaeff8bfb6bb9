//! Containers: a root file system, a specification, a process in the sandbox's shim.

use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use sampan_cri::v1;
use tokio::sync::watch;

use crate::signal;
use crate::state::{ContainerRecord, ContainerState, ContainerStatus, State};

mod create;
mod exec;
mod remove;
mod start;
mod stop;

pub(crate) use create::create;
pub(crate) use exec::{attach, exec, exec_sync, running};
pub(crate) use remove::{clean, remove, remove_bundle, undo};
pub(crate) use start::start;
pub(crate) use stop::stop;

/// A container in memory.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) sandbox_id: String,
    /// Held by what changes the container: start, stop, remove, update.
    pub(crate) lock: tokio::sync::Mutex<()>,
    /// Held while StartContainer runs, so that an exit is recorded after the start.
    pub(crate) starting: tokio::sync::Mutex<()>,
    /// Held while the stop signal is sent, so that calls at the same time send it once.
    pub(crate) signalling: tokio::sync::Mutex<()>,
    /// Whether the shim and the mounts are done with it.
    pub(crate) cleaned: tokio::sync::Mutex<bool>,
    record: Mutex<ContainerRecord>,
    changed: watch::Sender<ContainerState>,
    /// What walking the writable layer found, and when.
    pub(crate) disk_usage: Mutex<Option<(Instant, u64, u64)>>,
    /// CPU time at the last two samples, for a rate.
    pub(crate) cpu_sample: Mutex<Option<(Instant, u64)>>,
}

impl Container {
    pub(crate) fn new(record: ContainerRecord) -> Self {
        Self {
            id: record.id.clone(),
            sandbox_id: record.sandbox_id.clone(),
            lock: tokio::sync::Mutex::default(),
            starting: tokio::sync::Mutex::default(),
            signalling: tokio::sync::Mutex::default(),
            cleaned: tokio::sync::Mutex::default(),
            changed: watch::Sender::new(record.status.state),
            record: Mutex::new(record),
            disk_usage: Mutex::default(),
            cpu_sample: Mutex::default(),
        }
    }

    pub(crate) fn record(&self) -> MutexGuard<'_, ContainerRecord> {
        self.record.lock().expect("no panic under this lock")
    }

    pub(crate) fn status(&self) -> ContainerStatus {
        self.record().status.clone()
    }

    /// Changes the status, on disk too; `change` says whether it did anything.
    pub(crate) fn update(&self, state: &State, change: impl FnOnce(&mut ContainerStatus) -> bool) -> bool {
        let mut record = self.record();
        if !change(&mut record.status) {
            return false;
        }
        if let Err(error) = state.save_container(&record) {
            tracing::warn!(container = self.id, %error, "recording a container");
        }
        self.changed.send_replace(record.status.state);
        true
    }

    /// Resolves when the container has ended.
    pub(crate) async fn exited(&self) {
        let mut changed = self.changed.subscribe();
        // The sender lives as long as we do.
        let _ = changed.wait_for(|state| *state == ContainerState::Exited).await;
    }

    pub(crate) fn cri_status(&self) -> v1::ContainerStatus {
        let record = self.record();
        let status = &record.status;
        v1::ContainerStatus {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            state: cri_state(status.state).into(),
            created_at: record.created_at,
            started_at: status.started_at,
            finished_at: status.finished_at,
            exit_code: status.exit_code,
            image: image_spec(&record),
            image_ref: record.image_ref.clone(),
            reason: status.reason.clone(),
            message: status.message.clone(),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            mounts: record.config.mounts.clone(),
            log_path: record.log_path.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
            resources: Some(v1::ContainerResources {
                linux: record.config.linux.as_ref().and_then(|linux| linux.resources.clone()),
                windows: None,
            }),
            image_id: record.image_id.clone(),
            user: Some(v1::ContainerUser { linux: Some(record.user.clone()) }),
            stop_signal: signal::to_cri(record.stop_signal).into(),
        }
    }

    /// The entry in a list.
    pub(crate) fn summary(&self) -> v1::Container {
        let record = self.record();
        v1::Container {
            id: record.id.clone(),
            pod_sandbox_id: record.sandbox_id.clone(),
            metadata: record.config.metadata.clone(),
            image: image_spec(&record),
            image_ref: record.image_ref.clone(),
            state: cri_state(record.status.state).into(),
            created_at: record.created_at,
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            image_id: record.image_id.clone(),
        }
    }
}

/// The image as the pod wrote it, where the kubelet said so.
fn image_spec(record: &ContainerRecord) -> Option<v1::ImageSpec> {
    let mut image = record.config.image.clone()?;
    if !image.user_specified_image.is_empty() {
        image.image.clone_from(&image.user_specified_image);
    }
    Some(image)
}

fn cri_state(state: ContainerState) -> v1::ContainerState {
    match state {
        ContainerState::Created => v1::ContainerState::ContainerCreated,
        ContainerState::Running => v1::ContainerState::ContainerRunning,
        ContainerState::Exited => v1::ContainerState::ContainerExited,
    }
}
