//! One layer of a pull: fetched and unpacked once, however many pulls want it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use sampan_oci::registry::Session;
use sampan_oci::{Descriptor, Digest};
use tokio::sync::{Semaphore, mpsc, watch};

use super::stream::{self, Counters, Expected, Input, Part, StreamError};
use super::{ImageError, ImageStore, LayerRecord, LayerState};
use crate::snapshots::{LayerInfo, Staging, boot_id};
use crate::unpack::{UnpackError, Unpacked, parents};

/// How often progress is told.
const TICK: Duration = Duration::from_millis(100);

/// A blob of this size takes less time than the registry needs to begin with it: several such layers are one
/// layer's worth of work.
const SMALL: u64 = 1 << 20;
/// What a larger layer counts.
pub(super) const HEAVY: u32 = 4;

/// The right to fetch one blob.
type Turn = Arc<tokio::sync::OwnedMutexGuard<()>>;

/// What a layer's worker tells about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) state: LayerState,
    pub(super) arrived: u64,
    pub(super) unpacked: u64,
}

impl Told {
    const WAITING: Self = Self { state: LayerState::Waiting, arrived: 0, unpacked: 0 };
}

pub(super) type LayerResult = Result<(), Arc<ImageError>>;
type Work = Shared<BoxFuture<'static, LayerResult>>;
type WeakWork = WeakShared<BoxFuture<'static, LayerResult>>;

/// Layers that are being worked on, by chain id, and blobs that are being fetched.
#[derive(Default)]
pub(super) struct InFlight {
    layers: Mutex<HashMap<Digest, (WeakWork, watch::Receiver<Told>)>>,
    blobs: Mutex<HashMap<Digest, std::sync::Weak<tokio::sync::Mutex<()>>>>,
}

impl std::fmt::Debug for InFlight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InFlight")
    }
}

impl InFlight {
    /// Two layers with the same blob take turns, so that the second finds it stored.
    fn blob(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut blobs = self.blobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        blobs.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = blobs.get(digest).and_then(std::sync::Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        blobs.insert(digest.clone(), Arc::downgrade(&lock));
        lock
    }
}

/// One layer as its image needs it.
#[derive(Debug, Clone)]
pub(super) struct LayerPlan {
    pub(super) layer: LayerRecord,
    /// Chain ids below, lowest first.
    pub(super) parents: Vec<Digest>,
}

/// Where missing blobs come from; `None`: they must be stored already.
pub(super) type Origin = Option<Session>;

/// A layer's work as one pull sees it; dropping the last one stops the work.
pub(super) struct LayerWork {
    pub(super) work: Work,
    pub(super) told: watch::Receiver<Told>,
    /// Another pull began it.
    pub(super) joined: bool,
}

impl ImageStore {
    /// Begins a layer, or joins the pull that is already at it. `below` is the parent's work.
    pub(super) fn layer_work(
        self: &Arc<Self>,
        plan: &LayerPlan,
        origin: &Origin,
        permits: &Arc<Semaphore>,
        below: Option<Work>,
        join: bool,
    ) -> LayerWork {
        let chain = plan.layer.chain_id.clone();
        let mut layers = self.in_flight.layers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        layers.retain(|_, (work, _)| work.upgrade().is_some_and(|work| work.peek().is_none()));
        if join
            && let Some((work, told)) = layers.get(&chain)
            && let Some(work) = work.upgrade()
        {
            return LayerWork { work, told: told.clone(), joined: true };
        }
        let (tell, told) = watch::channel(Told::WAITING);
        let work = self.clone().obtain(plan.clone(), origin.clone(), permits.clone(), below, tell);
        let work = work.boxed().shared();
        if let Some(weak) = work.downgrade() {
            layers.insert(chain, (weak, told.clone()));
        }
        LayerWork { work, told, joined: false }
    }

    async fn obtain(
        self: Arc<Self>,
        plan: LayerPlan,
        origin: Origin,
        permits: Arc<Semaphore>,
        below: Option<Work>,
        tell: watch::Sender<Told>,
    ) -> LayerResult {
        let size = plan.layer.blob.size;
        if self.snapshots.has(&plan.layer.chain_id) {
            tell.send_replace(Told { state: LayerState::Exists, arrived: size, unpacked: 0 });
            return Ok(());
        }
        let staged = {
            let weight = if size <= SMALL { 1 } else { HEAVY };
            let _permit = permits.acquire_many(weight).await.map_err(|_| Arc::new(ImageError::Worker))?;
            let blob = self.in_flight.blob(&plan.layer.blob.digest);
            let turn = Arc::new(blob.lock_owned().await);
            self.stage_layer(&plan, &origin, &tell, &turn).await.map_err(Arc::new)?
        };
        if let Some(below) = below {
            below.await?;
        }
        tell.send_modify(|told| told.state = LayerState::Unpacking);
        let this = self.clone();
        let finished = tokio::task::spawn_blocking(move || this.settle(&plan, staged));
        finished.await.map_err(|_| Arc::new(ImageError::Worker))?.map_err(Arc::new)?;
        tell.send_modify(|told| *told = Told { state: LayerState::Done, arrived: size, ..*told });
        Ok(())
    }

    /// Fetches (unless stored), verifies and unpacks into a directory that nobody sees yet.
    async fn stage_layer(
        &self,
        plan: &LayerPlan,
        origin: &Origin,
        tell: &watch::Sender<Told>,
        turn: &Turn,
    ) -> Result<Staged, ImageError> {
        let blob = &plan.layer.blob;
        let counters = Arc::new(Counters::default());
        if self.content.has(&blob.digest, blob.size) {
            let path = self.content.path(&blob.digest);
            let file = std::fs::File::open(&path).map_err(|e| ImageError::io("open", &path, e))?;
            let work = self.streaming(plan, Input::Stored(file), &counters, turn)?;
            let result = told_while(work, tell, &counters, LayerState::Unpacking).await;
            match (result, origin) {
                // Damaged on our disk: gone with it, and fetched again.
                (Err(error), Some(_)) if is_wrong_content(&error) => {
                    tracing::warn!(blob = %blob.digest, "a stored blob is damaged; it is fetched again");
                    self.content.remove(&blob.digest);
                }
                (result, _) => return result,
            }
        }
        let Some(session) = origin else {
            return Err(ImageError::Archive(format!("layer {} is missing", blob.digest)));
        };
        let first = self.download(plan, session, tell, turn).await;
        match first {
            // What an earlier download left may be damaged, and another mirror may have it right.
            (Err(error), Some(again)) if is_wrong_content(&error) && again.pays(session) => {
                tracing::warn!(blob = %blob.digest, error = error.chain(), "wrong content; fetched once more");
                self.content.abandon(&blob.digest);
                self.download(plan, session, tell, turn).await.0
            }
            (result, _) => result,
        }
    }

    /// Fetches the blob and unpacks it while it arrives.
    async fn download(
        &self,
        plan: &LayerPlan,
        session: &Session,
        tell: &watch::Sender<Told>,
        turn: &Turn,
    ) -> (Result<Staged, ImageError>, Option<Download>) {
        let blob = &plan.layer.blob;
        let counters = Arc::new(Counters::default());
        let ingest = match self.content.ingest(&blob.digest, blob.size) {
            Ok(ingest) => ingest,
            Err(error) => return (Err(error), None),
        };
        let resumed = ingest.offset > 0;
        // A request that fails at once must not have cost two threads.
        let mut body = match session.blob(blob, ingest.offset).await {
            Ok(body) => body,
            Err(error) => return (Err(error.into()), None),
        };
        let (parts, received) = mpsc::channel(stream::QUEUE);
        let work = match self.streaming(plan, Input::Arriving { ingest, parts: received }, &counters, turn) {
            Ok(work) => work,
            Err(error) => return (Err(error), None),
        };
        let fetched = fetch(&mut body, parts);
        let worked = told_while(work, tell, &counters, LayerState::Downloading);
        let (fetched, worked) = futures::join!(fetched, worked);
        let download = Download { resumed, origin: body.origin().to_owned() };
        // A worker that gave up closes the queue, and then its reason is the one that counts.
        if let Err(error) = fetched {
            return (Err(error), Some(download));
        }
        (worked, Some(download))
    }

    /// Starts the blocking part.
    fn streaming(
        &self,
        plan: &LayerPlan,
        input: Input,
        counters: &Arc<Counters>,
        turn: &Turn,
    ) -> Result<tokio::task::JoinHandle<Result<Staged, ImageError>>, ImageError> {
        let staging = self.snapshots.stage(&plan.layer.chain_id)?;
        let LayerRecord { blob, diff_id, .. } = plan.layer.clone();
        let (limits, counters) = (self.config.limits.clone(), counters.clone());
        let (ingest_dir, content) = (self.config.dir.clone(), self.content.clone());
        let turn = turn.clone();
        Ok(tokio::task::spawn_blocking(move || {
            // Held until the thread is done, also when the pull was given up meanwhile.
            let _turn = turn;
            let dir = staging.fs();
            let expected = Expected { blob: &blob, diff_algorithm: diff_id.algorithm(), limits: &limits };
            let streamed = stream::run(input, expected, &dir, &counters);
            let streamed = streamed.map_err(|error| explain(error, &blob, &ingest_dir))?;
            if streamed.diff_id != diff_id {
                content.abandon(&blob.digest);
                return Err(ImageError::DiffId {
                    layer: blob.digest,
                    expected: diff_id,
                    actual: streamed.diff_id,
                });
            }
            if let Some(ingest) = streamed.ingest {
                // Before anybody else's turn, who would find half of it in each place.
                content.commit(ingest, &blob.digest)?;
            }
            Ok(Staged { staging, unpacked: streamed.unpacked })
        }))
    }

    /// The parents are there: settles what needs them and makes the layer visible.
    fn settle(&self, plan: &LayerPlan, staged: Staged) -> Result<(), ImageError> {
        let Staged { staging, unpacked } = staged;
        let blob = &plan.layer.blob.digest;
        let lower: Option<Vec<PathBuf>> =
            plan.parents.iter().rev().map(|chain| self.snapshots.layer(chain)).collect();
        let lower = lower.ok_or_else(|| ImageError::SnapshotMissing(plan.layer.chain_id.clone()))?;
        let info = LayerInfo {
            chain_id: plan.layer.chain_id.clone(),
            diff_id: plan.layer.diff_id.clone(),
            bytes: unpacked.bytes,
            inodes: unpacked.inodes,
            boot_id: boot_id(),
        };
        let bytes = parents::complete(&staging.fs(), &lower, unpacked, &self.config.limits)
            .map_err(|source| ImageError::unpack(blob, &self.config.dir, source))?;
        self.snapshots.commit(staging, LayerInfo { bytes, ..info })
    }
}

/// A layer that is verified and unpacked, but not visible.
struct Staged {
    staging: Staging,
    unpacked: Unpacked,
}

/// How a blob came.
struct Download {
    /// Behind what an earlier download had left.
    resumed: bool,
    origin: String,
}

impl Download {
    /// Whether a second download may bring something else.
    fn pays(&self, session: &Session) -> bool {
        let others = session.distrust(&self.origin);
        self.resumed || others
    }
}

/// The blob is not what its digest promises (a bent stream is often noticed before its digest).
fn is_wrong_content(error: &ImageError) -> bool {
    matches!(
        error,
        ImageError::Verify { .. }
            | ImageError::Unpack { source: UnpackError::Tar { .. } | UnpackError::Compression(_), .. }
    )
}

/// Moves the body into the queue. An unpacker that gave up closes the queue; its reason is told elsewhere.
async fn fetch(
    body: &mut sampan_oci::registry::BlobStream,
    parts: mpsc::Sender<Part>,
) -> Result<(), ImageError> {
    loop {
        let data = tokio::select! {
            biased;
            () = parts.closed() => return Ok(()),
            data = body.next() => data?,
        };
        let part = data.map_or(Part::End, Part::Data);
        let last = matches!(part, Part::End);
        if parts.send(part).await.is_err() || last {
            return Ok(());
        }
    }
}

/// Waits for the worker and tells its counters meanwhile.
async fn told_while(
    mut work: tokio::task::JoinHandle<Result<Staged, ImageError>>,
    tell: &watch::Sender<Told>,
    counters: &Counters,
    state: LayerState,
) -> Result<Staged, ImageError> {
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            result = &mut work => return result.map_err(|_| ImageError::Worker)?,
            _ = tick.tick() => {
                let arrived = counters.arrived.load(Ordering::Relaxed);
                let unpacked = counters.unpacked.load(Ordering::Relaxed);
                tell.send_replace(Told { state, arrived, unpacked });
            }
        }
    }
}

fn explain(error: StreamError, blob: &Descriptor, dir: &std::path::Path) -> ImageError {
    let layer = blob.digest.clone();
    match error {
        StreamError::Verify(source) => ImageError::Verify { image: layer.to_string(), source },
        StreamError::Decode(source) => ImageError::Unpack { layer, source: UnpackError::Compression(source) },
        StreamError::Blob(source) => ImageError::io("store blob in", dir, source),
        StreamError::Unpack(source) => ImageError::unpack(&layer, dir, source),
        StreamError::BrokenOff | StreamError::Panicked => ImageError::Worker,
    }
}
