//! Pod sandboxes: a shim that holds the pod's namespaces, a network, and a directory of files.

use std::sync::{Mutex, MutexGuard};

use sampan_cri::v1::{self, NamespaceMode};
use sampan_shim::client::Shim;
use tonic::Status;

use crate::state::{SandboxRecord, SandboxState};

mod create;
mod files;
mod stop;

pub(crate) use create::run;
pub(crate) use files::remove as remove_files;
pub(crate) use stop::{mark_not_ready, remove, stop, undo};

/// A sandbox in memory.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    /// Held by what changes the sandbox as a whole, stopping and removing; whether only the record is left of it.
    pub(crate) stopped: tokio::sync::Mutex<bool>,
    record: Mutex<SandboxRecord>,
    shim: Mutex<Option<Shim>>,
}

impl Sandbox {
    pub(crate) fn new(record: SandboxRecord, shim: Option<Shim>) -> Self {
        Self {
            id: record.id.clone(),
            stopped: tokio::sync::Mutex::default(),
            record: Mutex::new(record),
            shim: Mutex::new(shim),
        }
    }

    pub(crate) fn record(&self) -> MutexGuard<'_, SandboxRecord> {
        self.record.lock().expect("no panic under this lock")
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.record().state == SandboxState::Ready
    }

    /// The shim of a ready sandbox.
    pub(crate) fn shim(&self) -> Result<Shim, Status> {
        let shim = self.shim.lock().expect("no panic under this lock").clone();
        shim.ok_or_else(|| Status::failed_precondition(format!("sandbox {} is not running", self.id)))
    }

    /// The shim, once: whoever takes it ends it.
    pub(crate) fn take_shim(&self) -> Option<Shim> {
        self.shim.lock().expect("no panic under this lock").take()
    }

    pub(crate) fn status(&self) -> v1::PodSandboxStatus {
        let record = self.record();
        let (first, others) = match record.ips.split_first() {
            Some((first, others)) => (first.to_string(), others),
            None => (String::new(), &[][..]),
        };
        let additional_ips = others.iter().map(|ip| v1::PodIp { ip: ip.to_string() }).collect();
        v1::PodSandboxStatus {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            state: cri_state(record.state).into(),
            created_at: record.created_at,
            network: Some(v1::PodSandboxNetworkStatus { ip: first, additional_ips }),
            linux: Some(v1::LinuxPodSandboxStatus {
                namespaces: Some(v1::Namespace { options: Some(namespace_options(&record.config)) }),
            }),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            runtime_handler: record.runtime_handler.clone(),
        }
    }

    /// The entry in a list.
    pub(crate) fn summary(&self) -> v1::PodSandbox {
        let record = self.record();
        v1::PodSandbox {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            state: cri_state(record.state).into(),
            created_at: record.created_at,
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            runtime_handler: record.runtime_handler.clone(),
        }
    }
}

fn cri_state(state: SandboxState) -> v1::PodSandboxState {
    match state {
        SandboxState::Ready => v1::PodSandboxState::SandboxReady,
        SandboxState::Creating | SandboxState::NotReady => v1::PodSandboxState::SandboxNotready,
    }
}

/// The namespaces that a sandbox's configuration asks for.
pub(crate) fn namespace_options(config: &v1::PodSandboxConfig) -> v1::NamespaceOption {
    config
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.as_ref())
        .and_then(|context| context.namespace_options.clone())
        .unwrap_or_default()
}

/// The pod lives in the host's network.
pub(crate) fn host_network(config: &v1::PodSandboxConfig) -> bool {
    namespace_options(config).network() == NamespaceMode::Node
}
