//! `Terminating`: stops all containers of the pod, and tells meanwhile how far it is (POD-27, POD-30 to POD-35).

use std::sync::Arc;

use tokio::time::Instant;

use super::budget::Budget;
use super::{Life, Next, PodWorker};
use crate::pods::runtime_pod::RuntimeContainer;

impl PodWorker {
    /// Stops everything; a second deletion with less patience shortens the grace period (POD-32).
    pub(super) async fn terminate(&mut self) -> Next {
        self.probers.stop_all_but_readiness();
        if !self.refresh().await {
            return self.set_back();
        }
        self.update_terminating_probers();
        let stopping: Vec<RuntimeContainer> = self.runtime.running().cloned().collect();
        for run in &stopping {
            self.announce(run, &format!("Stopping container {}", run.name));
        }
        if self.tells_end() && !stopping.is_empty() {
            self.publish(false);
        }
        // A second try at what could not be stopped does not begin the grace period again.
        let began = *self.terminating_since.get_or_insert_with(Instant::now);
        self.stop_everything(stopping, began).await;
        if !self.refresh().await {
            return self.set_back();
        }
        if self.runtime.running().next().is_some() {
            return self.set_back();
        }
        if !self.stop_sandboxes().await {
            self.refresh().await;
            if self.runtime.sandboxes.iter().any(|sandbox| sandbox.ready) {
                return self.set_back();
            }
        }
        self.probers.stop_all();
        if self.tells_end() {
            self.publish(true);
        }
        self.setbacks = 0;
        self.life = Life::Terminated;
        Next::Again
    }

    /// A pod that runs again with the node has not ended; one that the node ends for good has.
    fn tells_end(&self) -> bool {
        !self.inbox.node_stops() || self.inbox.node_end().is_some()
    }

    async fn stop_everything(&mut self, stopping: Vec<RuntimeContainer>, began: Instant) {
        let inbox = Arc::clone(&self.inbox);
        let mut grace = inbox.grace_seconds();
        let (shorten, budget) = Budget::shrinking(began, grace);
        let mut work = Box::pin(self.stopper().stop_all(stopping, budget));
        loop {
            tokio::select! {
                () = &mut work => return,
                () = inbox.changed() => {}
            }
            let now = inbox.grace_seconds();
            if now < grace {
                grace = now;
                let _ = shorten.send(grace);
            }
            // Readiness that went, containers that ended before others (POD-33).
            self.take_news();
            if self.tells_end() && self.refresh().await {
                self.publish(false);
            }
        }
    }
}
