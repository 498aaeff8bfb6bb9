//! Probes: are containers started, alive, ready? One task per probe and container; results are kept per
//! container id, so a restarted container starts from nothing (POD-38 to POD-43).

mod grpc_health;
pub(crate) mod prober;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::sync::Notify;

use crate::pods::runtime_pod::{RuntimeContainer, State};

/// Which question a probe asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    /// Has it started? The other two wait for it.
    Startup,
    /// Is it alive? If not, it is restarted.
    Liveness,
    /// May it get traffic?
    Readiness,
}

impl ProbeKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];

    /// The name in events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    /// The container's probe of this kind.
    #[must_use]
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// The latest verdicts about a pod's containers. Cheap to clone; clones share them.
#[derive(Clone, Debug, Default)]
pub struct ProbeResults {
    verdicts: Arc<Mutex<HashMap<(ProbeKind, String), bool>>>,
    changed: Arc<Notify>,
}

impl ProbeResults {
    fn lock(&self) -> MutexGuard<'_, HashMap<(ProbeKind, String), bool>> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a verdict; true when it is another than before.
    pub fn set(&self, kind: ProbeKind, container_id: &str, success: bool) -> bool {
        let news = self.lock().insert((kind, container_id.to_owned()), success) != Some(success);
        if news {
            self.changed.notify_waiters();
        }
        news
    }

    /// The verdict, if there is one yet.
    #[must_use]
    pub fn get(&self, kind: ProbeKind, container_id: &str) -> Option<bool> {
        self.lock().get(&(kind, container_id.to_owned())).copied()
    }

    /// Whether the probe failed as often as its threshold says.
    #[must_use]
    pub fn failed(&self, kind: ProbeKind, container_id: &str) -> bool {
        self.get(kind, container_id) == Some(false)
    }

    /// Waits until the container's startup probe has succeeded: the others begin right then (POD-41).
    pub(crate) async fn started_up(&self, container_id: &str) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.get(ProbeKind::Startup, container_id) == Some(true) {
                return;
            }
            changed.await;
        }
    }

    /// Whether a running container counts as started (POD-41).
    #[must_use]
    pub fn started(&self, container: &Container, run: &RuntimeContainer) -> bool {
        run.state == State::Running
            && (container.startup_probe.is_none() || self.get(ProbeKind::Startup, &run.id) == Some(true))
    }

    /// Whether a started container counts as ready (POD-39).
    #[must_use]
    pub fn ready(&self, container: &Container, run: &RuntimeContainer) -> bool {
        container.readiness_probe.is_none() || self.get(ProbeKind::Readiness, &run.id) == Some(true)
    }

    /// Forgets containers that `keep` does not want.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.lock().retain(|(_, id), _| keep(id));
    }
}
