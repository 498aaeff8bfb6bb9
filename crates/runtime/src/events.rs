//! Container events for `GetContainerEvents`, from which a kubelet learns of changes without polling.

use sampan_cri::v1::{ContainerEventResponse, ContainerEventType};
use tokio::sync::broadcast;

/// Events that a slow reader may be behind; then it loses the oldest.
const CAPACITY: usize = 1024;

/// Sends events to whoever listens.
#[derive(Debug)]
pub(crate) struct Events(broadcast::Sender<ContainerEventResponse>);

impl Events {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(CAPACITY))
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<ContainerEventResponse> {
        self.0.subscribe()
    }

    /// Whether making an event is worth the work.
    pub(crate) fn wanted(&self) -> bool {
        self.0.receiver_count() > 0
    }

    pub(crate) fn send(&self, mut event: ContainerEventResponse, kind: ContainerEventType) {
        event.container_event_type = kind.into();
        event.created_at = crate::time::now();
        // An error means that nobody listens.
        let _ = self.0.send(event);
    }
}
