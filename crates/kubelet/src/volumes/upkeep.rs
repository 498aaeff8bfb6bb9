//! Keeps what is in a pod's volumes as the API has it (ENV-25, ENV-47, ENV-50): a task beside the worker, which may be
//! waiting for a pull or a hook when a ConfigMap changes.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::PodVolumes;
use crate::context::NodeContext;
use crate::events::EventType;
use crate::pod_ref;

/// The wait after a failure without news: what answers token requests may come back silently.
const RETRY: Duration = Duration::from_secs(10);

/// The volumes of one pod, and the task that keeps them. Without a task nothing in them can change.
#[derive(Default)]
pub(crate) struct Upkeep {
    volumes: Arc<Mutex<PodVolumes>>,
    task: Option<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Upkeep {
    /// Begins. `missing` is called when something changed and not all volumes are there yet: to set them up, and to
    /// tell of it, is the worker's part.
    pub(crate) fn start(
        ctx: Arc<NodeContext>,
        mut pods: watch::Receiver<Arc<Pod>>,
        missing: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let mut upkeep = Self::default();
        if super::own_volumes(&pods.borrow_and_update()).any(super::has_content) {
            let keeper = Keeper { ctx, pods, volumes: Arc::clone(&upkeep.volumes) };
            upkeep.task = Some(tokio::spawn(keeper.run(upkeep.stop.clone(), missing)));
        }
        upkeep
    }

    /// The volumes; nobody changes them meanwhile.
    pub(crate) async fn lock(&self) -> MutexGuard<'_, PodVolumes> {
        self.volumes.lock().await
    }

    /// Ends the upkeep; when this returns nothing is written any more.
    pub(crate) async fn stop(&mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Keeper {
    ctx: Arc<NodeContext>,
    pods: watch::Receiver<Arc<Pod>>,
    volumes: Arc<Mutex<PodVolumes>>,
}

impl Keeper {
    /// A write is never left half done: the task ends between two of them.
    async fn run(mut self, stop: CancellationToken, missing: impl Fn() + Send + Sync) {
        let news = self.volumes.lock().await.news();
        let mut wait = self.ctx.config.sync_frequency;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = news.notified() => {}
                changed = self.pods.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait) => {}
            }
            wait = self.update(&missing).await;
        }
    }

    /// Brings everything up to date; how long that is good without news.
    async fn update(&mut self, missing: &(impl Fn() + Sync)) -> Duration {
        let often = self.ctx.config.sync_frequency;
        let pod = Arc::clone(&self.pods.borrow_and_update());
        let mut volumes = self.volumes.lock().await;
        if !volumes.complete(&pod) {
            drop(volumes);
            missing();
            return often;
        }
        match volumes.sync(&self.ctx, &pod).await {
            // A clock that was set may make a token look old as soon as it is there.
            Ok(()) => volumes.good_for(&self.ctx).map_or(often, |good| good.max(RETRY).min(often)),
            Err(errors) => {
                // The files stay as they were.
                for error in errors {
                    let about = pod_ref::object_reference(&pod);
                    self.ctx.recorder.record(about, EventType::Warning, "FailedMount", error.event());
                }
                RETRY.min(often)
            }
        }
    }
}
