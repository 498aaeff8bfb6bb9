//! Image garbage collection: removes what no container uses, the longest unused first, when the disk fills up,
//! and what was unused for too long (IMG-83, IMG-84).

mod records;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sampan_cri::v1;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use super::image_spec;
use crate::context::NodeContext;
use crate::events::EventType;
use crate::pod_ref;
use crate::pods::workers::Workers;
use records::{ImageRecords, Victim};

/// How often images are looked at and, if need be, removed: upstream's period.
const PERIOD: Duration = Duration::from_secs(300);

/// Asks the collector for room at once: what the node does before it ends pods for lack of disk.
#[derive(Clone, Debug)]
pub(crate) struct RoomRequests(mpsc::Sender<oneshot::Sender<u64>>);

/// What the collector is asked for.
pub(crate) type RoomWanted = mpsc::Receiver<oneshot::Sender<u64>>;

impl RoomRequests {
    /// A way to ask, and what [`run`] listens to.
    pub(crate) fn new() -> (Self, RoomWanted) {
        let (ask, wanted) = mpsc::channel(1);
        (Self(ask), wanted)
    }

    /// Removes all images that nobody uses and that are not brand-new; how many bytes that were.
    pub(crate) async fn make_room(&self) -> u64 {
        let (answer, freed) = oneshot::channel();
        if self.0.send(answer).await.is_err() {
            return 0;
        }
        freed.await.unwrap_or(0)
    }
}

/// Looks and removes until it is aborted.
pub(crate) async fn run(ctx: Arc<NodeContext>, workers: Workers, mut wanted: RoomWanted) {
    let mut collector = Collector::new(Arc::clone(&ctx), workers);
    let mut failed_before = false;
    // The pods of an earlier life start first: their images are about to be used.
    if let Err(status) = collector.look().await {
        tracing::debug!(%status, "images are not known yet");
    }
    let mut next = tokio::time::Instant::now() + PERIOD;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(next) => next = tokio::time::Instant::now() + PERIOD,
            Some(answer) = wanted.recv() => {
                let _ = answer.send(collector.make_room().await);
                continue;
            }
        }
        match collector.collect().await {
            Ok(()) => failed_before = false,
            Err(error) => {
                tracing::warn!(error, "image garbage collection");
                // One failure alone is nobody's business: statistics may not be there yet.
                if std::mem::replace(&mut failed_before, true) {
                    collector.node_event("ImageGCFailed", error);
                }
            }
        }
    }
}

/// The file system of images.
#[derive(Clone, Copy, Debug)]
struct Disk {
    capacity: u64,
    available: u64,
}

struct Collector {
    ctx: Arc<NodeContext>,
    workers: Workers,
    records: ImageRecords,
    began: Timestamp,
    looked: bool,
}

impl Collector {
    fn new(ctx: Arc<NodeContext>, workers: Workers) -> Self {
        let began = ctx.config.clock.now();
        Self { ctx, workers, records: ImageRecords::default(), began, looked: false }
    }

    fn node_event(&self, reason: &str, message: String) {
        let reference = k8s_openapi::api::core::v1::ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(self.ctx.config.node_name.clone()),
            uid: Some(self.ctx.config.node_name.clone()),
            ..Default::default()
        };
        self.ctx.recorder.record(reference, EventType::Warning, reason, message);
    }

    /// One round.
    async fn collect(&mut self) -> Result<(), String> {
        let config = &self.ctx.config.images;
        let (min_age, max_age) = (config.image_minimum_gc_age, config.image_maximum_gc_age);
        let (high, low) = (config.image_gc_high_threshold_percent, config.image_gc_low_threshold_percent);
        self.ctx.images.access.settle(&*self.ctx.config.cri).await;
        let began =
            self.look().await.map_err(|status| format!("failed to list images: {}", status.message()))?;
        // A kubelet that just started does not know what was used before.
        if !max_age.is_zero() && self.ctx.config.clock.since(self.began) > max_age {
            let old = self.records.unused_for(max_age, began);
            self.remove(old, None, "age").await;
        }
        // As upstream: that is how it is switched off.
        if high >= 100 {
            return Ok(());
        }
        let disk = self.disk().await?;
        let used = 100 - disk.available.saturating_mul(100) / disk.capacity;
        if used < u64::from(high) {
            return Ok(());
        }
        let wanted = (disk.capacity / 100 * u64::from(100 - low)).saturating_sub(disk.available);
        tracing::info!(used, high, low, wanted, "the image file system is over its threshold");
        let victims = self.records.unused_longest_first(began, min_age);
        let freed = self.remove(victims, Some(wanted), "space").await;
        if freed >= wanted {
            return Ok(());
        }
        let message = format!(
            "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found {freed} bytes eligible to free."
        );
        self.node_event("FreeDiskSpaceFailed", message.clone());
        Err(message)
    }

    /// Removes all that is unused; how many bytes that were.
    async fn make_room(&mut self) -> u64 {
        let began = match self.look().await {
            Ok(began) => began,
            Err(status) => {
                tracing::warn!(%status, "no room made: the images are not known");
                return 0;
            }
        };
        let victims = self.records.unused_longest_first(began, self.ctx.config.images.image_minimum_gc_age);
        self.remove(victims, None, "space").await
    }

    /// Learns which images there are and which are used; the time it did.
    async fn look(&mut self) -> Result<Timestamp, Status> {
        let now = self.ctx.config.clock.now();
        let cri = &self.ctx.config.cri;
        let (images, containers, sandboxes) = tokio::try_join!(
            cri.list_images(),
            cri.list_containers(Default::default()),
            cri.list_pod_sandboxes(Default::default())
        )?;
        let mut used: HashSet<String> = HashSet::new();
        for container in containers {
            used.extend([container.image_id, container.image_ref]);
            used.extend(container.image.map(|image| image.image));
        }
        for pod in self.workers.pods() {
            let volumes = pod_ref::spec(&pod).volumes.iter().flatten();
            for reference in volumes.filter_map(|volume| volume.image.as_ref()?.reference.as_deref()) {
                // A name may mean another platform's image to the pod's handler (KEP-4216).
                let of_pod = |sandbox: &&v1::PodSandbox| {
                    sandbox.metadata.as_ref().is_some_and(|metadata| metadata.uid == pod_ref::uid(&pod))
                };
                let handler = sandboxes.iter().find(of_pod).map(|sandbox| sandbox.runtime_handler.as_str());
                let spec = image_spec(reference, &pod, handler.unwrap_or_default());
                used.extend(cri.image_status(spec).await?.map(|image| image.id));
            }
        }
        // Whatever the first look finds was there before: of unknown age, so old.
        let seen = if std::mem::replace(&mut self.looked, true) { now } else { Timestamp::UNIX_EPOCH };
        let present: Vec<String> = images.iter().map(|image| image.id.clone()).collect();
        self.records.update(images, &used, seen, now);
        self.ctx.images.access.prune(&present, now);
        Ok(now)
    }

    /// Removes until `wanted` bytes are free, or all; how many that were.
    async fn remove(&mut self, victims: Vec<Victim>, wanted: Option<u64>, reason: &str) -> u64 {
        let mut freed = 0;
        for victim in victims {
            if wanted.is_some_and(|wanted| freed >= wanted) {
                break;
            }
            let spec = v1::ImageSpec { image: victim.id.clone(), ..Default::default() };
            match self.ctx.config.cri.remove_image(spec).await {
                Ok(()) => {
                    tracing::info!(image = victim.id, size = victim.size, reason, "image removed");
                    self.records.forget(&victim.id);
                    self.ctx.metrics.images.removed(reason);
                    freed += victim.size;
                }
                Err(status) => tracing::warn!(image = victim.id, %status, "cannot remove the image"),
            }
        }
        freed
    }

    async fn disk(&self) -> Result<Disk, String> {
        let info = self.ctx.config.cri.image_fs_info().await.map_err(|status| status.message().to_owned())?;
        let usage = info.image_filesystems.first().ok_or("the runtime tells no image file system")?;
        let mountpoint = usage.fs_id.as_ref().map(|id| id.mountpoint.clone()).unwrap_or_default();
        let disk = disk_of(Path::new(&mountpoint))
            .map_err(|error| format!("image file system {mountpoint:?}: {error}"))?;
        if disk.capacity == 0 {
            let message = "invalid capacity 0 on image filesystem".to_owned();
            self.node_event("InvalidDiskCapacity", message.clone());
            return Err(message);
        }
        Ok(disk)
    }
}

fn disk_of(path: &Path) -> std::io::Result<Disk> {
    let stat = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(Disk { capacity: bytes(stat.f_blocks), available: bytes(stat.f_bavail) })
}
