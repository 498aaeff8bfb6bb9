//! The progress of pulls under way, for clients that draw bars.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::Stream;
use sampan_cri::progress as proto;
use sampan_cri::progress::pull_progress_server::PullProgress as PullProgressService;
use tokio::sync::{Notify, watch};
use tonic::{Request, Response, Status};

use super::ImageService;
use crate::images::{LayerState, PullProgress};

/// The state is told at most this often.
const INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Default)]
enum Outcome {
    #[default]
    Running,
    Done(String),
    Failed(String),
}

#[derive(Debug, Clone)]
struct Pull {
    id: u64,
    progress: watch::Receiver<PullProgress>,
    outcome: watch::Receiver<Outcome>,
}

/// The pulls under way, by the name they were asked for.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    under_way: Mutex<HashMap<String, Pull>>,
    begun: Notify,
}

/// One pull under way; gone from the list with its end.
pub(super) struct Tracked {
    pulls: Arc<Pulls>,
    image: String,
    id: u64,
    progress: watch::Sender<PullProgress>,
    outcome: watch::Sender<Outcome>,
}

impl Pulls {
    pub(super) fn begin(self: &Arc<Self>, image: &str) -> Tracked {
        let (progress, progress_rx) = watch::channel(PullProgress::default());
        let (outcome, outcome_rx) = watch::channel(Outcome::default());
        let id = rand::random();
        let pull = Pull { id, progress: progress_rx, outcome: outcome_rx };
        self.list().insert(image.to_owned(), pull);
        self.begun.notify_waiters();
        Tracked { pulls: self.clone(), image: image.to_owned(), id, progress, outcome }
    }

    fn list(&self) -> std::sync::MutexGuard<'_, HashMap<String, Pull>> {
        self.under_way.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn wait_for(&self, image: &str) -> Pull {
        loop {
            let begun = self.begun.notified();
            tokio::pin!(begun);
            // Registered before looking, so that a pull that begins in between is not missed.
            begun.as_mut().enable();
            if let Some(pull) = self.list().get(image) {
                return pull.clone();
            }
            begun.await;
        }
    }
}

impl Tracked {
    pub(super) fn sender(&self) -> watch::Sender<PullProgress> {
        self.progress.clone()
    }

    pub(super) fn done(&self, image_ref: String) {
        self.outcome.send_replace(Outcome::Done(image_ref));
    }

    pub(super) fn failed(&self, error: String) {
        self.outcome.send_replace(Outcome::Failed(error));
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let mut list = self.pulls.list();
        if list.get(&self.image).is_some_and(|pull| pull.id == self.id) {
            list.remove(&self.image);
        }
    }
}

#[tonic::async_trait]
impl PullProgressService for ImageService {
    async fn mirrors(
        &self,
        request: Request<proto::MirrorsRequest>,
    ) -> Result<Response<proto::MirrorsResponse>, Status> {
        let hosts = self.store.mirrors(&request.into_inner().image).map_err(|error| super::status(&error))?;
        Ok(Response::new(proto::MirrorsResponse { hosts }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<proto::WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let wait = Duration::from_secs(u64::from(request.wait_seconds));
        let pull = tokio::time::timeout(wait, self.pulls.wait_for(&request.image)).await;
        let pull =
            pull.map_err(|_| Status::not_found(format!("no pull of {:?} is under way", request.image)))?;
        let image = request.image;
        let states = futures::stream::unfold(Some((pull, true)), move |state| {
            let image = image.clone();
            async move {
                let (mut pull, first) = state?;
                if !first {
                    // Changes that come faster are told together.
                    tokio::time::sleep(INTERVAL).await;
                    tokio::select! {
                        _ = pull.progress.changed() => {}
                        _ = pull.outcome.changed() => {}
                    }
                }
                let response = response(&image, &mut pull);
                let ended = !matches!(response.phase(), proto::Phase::Resolving | proto::Phase::Pulling);
                Some((Ok(response), (!ended).then_some((pull, false))))
            }
        });
        Ok(Response::new(Box::pin(states)))
    }
}

fn response(image: &str, pull: &mut Pull) -> proto::WatchResponse {
    let gone = pull.outcome.has_changed().is_err();
    let outcome = pull.outcome.borrow_and_update().clone();
    let progress = pull.progress.borrow_and_update().clone();
    let (phase, error, image_ref) = match outcome {
        Outcome::Done(image_ref) => (proto::Phase::Done, String::new(), image_ref),
        Outcome::Failed(error) => (proto::Phase::Failed, error, String::new()),
        Outcome::Running if gone => {
            (proto::Phase::Failed, "the pull was cancelled".to_owned(), String::new())
        }
        Outcome::Running if progress.layers.is_empty() => {
            (proto::Phase::Resolving, String::new(), String::new())
        }
        Outcome::Running => (proto::Phase::Pulling, String::new(), String::new()),
    };
    let layers = progress.layers.iter().map(|layer| proto::Layer {
        digest: layer.digest.to_string(),
        state: match layer.state {
            LayerState::Waiting => proto::LayerState::Waiting,
            LayerState::Downloading => proto::LayerState::Downloading,
            LayerState::Unpacking => proto::LayerState::Unpacking,
            LayerState::Done => proto::LayerState::Complete,
            LayerState::Exists => proto::LayerState::Exists,
        }
        .into(),
        downloaded: layer.done,
        total: layer.total,
        unpacked: layer.unpacked,
    });
    proto::WatchResponse {
        image: image.to_owned(),
        phase: phase.into(),
        layers: layers.collect(),
        error,
        image_ref,
    }
}
