//! The images of this node: names, records, pulls, archives.
//!
//! `<dir>/content` holds what registries serve, by digest; `<dir>/snapshots` one directory per unpacked
//! layer; `<dir>/images/images.json` says which names mean which image. The last is written after
//! everything that it points to, so a crash at any moment leaves at most leftovers, which the next
//! start collects.

mod collect;
mod database;
mod error;
mod layer;
mod layout;
mod leases;
mod load;
mod lock;
mod pins;
mod preload;
mod progress;
mod pull;
mod record;
mod save;
mod stream;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use sampan_oci::registry::{Client, ClientConfig, Credentials};
use sampan_oci::{Digest, Platform, Reference};
use tokio::sync::watch;

pub use error::ImageError;
pub(crate) use error::is_disk_full;
pub use layout::pack as pack_layout;
pub use progress::{LayerProgress, LayerState, PullProgress};
pub use record::{ImageRecord, LayerRecord};

use crate::builtin::{self, Builtin};
use crate::content::ContentStore;
use crate::snapshots::Snapshots;
pub use crate::unpack::{UnpackError, UnpackLimits};

/// How often it is looked whether another process is done with the store.
const BUSY: std::time::Duration = std::time::Duration::from_millis(50);

/// How an [`ImageStore`] works.
#[derive(Debug, Clone)]
pub struct ImageStoreConfig {
    /// `<data-dir>/runtime`; `content`, `snapshots` and `images` are made in it.
    pub dir: PathBuf,
    /// How registries are reached.
    pub registry: ClientConfig,
    /// The image made from our own executable, when wanted.
    pub builtin: Option<Builtin>,
    /// Bounds of what a layer may unpack to.
    pub limits: UnpackLimits,
    /// Layers that one pull downloads and unpacks at a time.
    pub parallel_layers: usize,
    /// The platform that index entries are chosen for.
    pub platform: Platform,
    /// Handlers whose containers run another platform's images (KEP-4216).
    pub handler_platforms: BTreeMap<String, Platform>,
    /// Flush new layers to the disk behind a pull's back. A process that ends with its pull would wait for
    /// that; it leaves it to the next one that opens the store.
    pub flush: bool,
    /// Nobody else may have the store open meanwhile. (Within one process, whoever opens it a second time knows.)
    pub exclusive: bool,
}

impl ImageStoreConfig {
    /// The usual: three layers at a time, this machine's platform, no built-in image.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            registry: ClientConfig::default(),
            builtin: None,
            limits: UnpackLimits::default(),
            parallel_layers: 3,
            platform: Platform::host(),
            handler_platforms: BTreeMap::new(),
            flush: true,
            exclusive: false,
        }
    }
}

/// One pull.
#[derive(Debug, Default)]
pub struct PullRequest {
    /// The image name as written.
    pub image: String,
    /// Who asks.
    pub credentials: Credentials,
    /// Who asks mirrors, by their server (`host[:port]`).
    pub mirrors: HashMap<String, Vec<Credentials>>,
    /// The runtime handler that it is for; empty is the default one.
    pub handler: String,
    /// Where progress is told; make one with `watch::channel(PullProgress::default())`.
    pub progress: Option<watch::Sender<PullProgress>>,
}

/// What [`ImageStore::save`] writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ArchiveFormat {
    /// An OCI image layout in a tar.
    #[default]
    Oci,
    /// What `docker save` writes (it is also a valid OCI layout).
    Docker,
}

/// What [`ImageStore::remove`] and [`ImageStore::prune`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that are gone.
    pub untagged: Vec<String>,
    /// Images that are gone.
    pub deleted: Vec<Digest>,
    /// Bytes freed on disk.
    pub bytes: u64,
}

/// Space that images take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsInfo {
    /// The directory that identifies the file system.
    pub mountpoint: PathBuf,
    /// Bytes used by blobs and unpacked layers.
    pub used_bytes: u64,
    /// Inodes used by them.
    pub inodes_used: u64,
}

/// All images of a node.
#[derive(Debug)]
pub struct ImageStore {
    pub(crate) config: ImageStoreConfig,
    registry: Client,
    content: Arc<ContentStore>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) database: database::Database,
    in_flight: layer::InFlight,
    leases: leases::Leases,
    /// As the configuration began with, until the handlers change.
    handler_platforms: RwLock<BTreeMap<String, Platform>>,
    /// One flush of the disk at a time.
    syncing: Arc<tokio::sync::Semaphore>,
    /// Nobody else has the store.
    _lock: Option<std::fs::File>,
}

impl ImageStore {
    /// Opens the store, making it when missing. What a killed process left behind is collected; an image that
    /// lost layers with the machine's power is unpacked again from its blobs, or forgotten. The built-in
    /// image is made. Waits for another process that has the store.
    pub async fn open(config: ImageStoreConfig) -> Result<Arc<Self>, ImageError> {
        let mut told = false;
        loop {
            match Self::try_open(config.clone()).await {
                Err(error @ ImageError::Busy { .. }) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%error, "waiting for it");
                    }
                    tokio::time::sleep(BUSY).await;
                }
                other => return other,
            }
        }
    }

    /// As [`ImageStore::open`], without waiting: [`ImageError::Busy`] when another process has the store.
    pub async fn try_open(config: ImageStoreConfig) -> Result<Arc<Self>, ImageError> {
        let registry = Client::new(config.registry.clone())?;
        let open = move || {
            let dir = config.dir.clone();
            let lock = lock::take(&dir, config.exclusive)?;
            let store = Arc::new(Self {
                registry,
                content: Arc::new(ContentStore::open(dir.join("content"))?),
                snapshots: Snapshots::open(dir.join("snapshots"))?,
                database: database::Database::open(dir.join("images"))?,
                in_flight: layer::InFlight::default(),
                leases: leases::Leases::default(),
                handler_platforms: RwLock::new(config.handler_platforms.clone()),
                syncing: Arc::new(tokio::sync::Semaphore::new(1)),
                _lock: lock,
                config,
            });
            builtin::install(&store)?;
            Ok::<_, ImageError>(store)
        };
        let store = tokio::task::spawn_blocking(open).await.map_err(|_| ImageError::Worker)??;
        store.recover().await?;
        // What a command pulled and did not wait for; the built-in image is made again as quickly as flushed.
        let unsynced =
            |image: &Arc<ImageRecord>| image.chain_ids().any(|chain| !store.snapshots.is_synced(chain));
        if store.list().iter().any(|image| !builtin::is_builtin(image) && unsynced(image)) {
            store.sync_later();
        }
        Ok(store)
    }

    /// The servers that a pull of `image` would ask instead of its own registry.
    pub fn mirrors(&self, image: &str) -> Result<Vec<String>, ImageError> {
        let reference = Reference::parse(image)?;
        let mirrors = self.registry.mirrors(reference.host());
        // A broken file is for the pull to tell.
        Ok(mirrors.unwrap_or_default())
    }

    /// The file systems of images and containers.
    pub fn snapshots(&self) -> &Arc<Snapshots> {
        &self.snapshots
    }

    /// How the store was opened.
    pub fn config(&self) -> &ImageStoreConfig {
        &self.config
    }

    /// The image that a name (any spelling), an id or a prefix of an id means; `None` when it is not here.
    /// Never talks to a registry and does not block.
    pub fn resolve(&self, name: &str) -> Result<Option<Arc<ImageRecord>>, ImageError> {
        self.resolve_for(name, "")
    }

    /// As [`ImageStore::resolve`], as the containers of a runtime handler see it: where that one runs another
    /// platform, a name means that platform's image (KEP-4216). An id means the same for all.
    pub fn resolve_for(&self, name: &str, handler: &str) -> Result<Option<Arc<ImageRecord>>, ImageError> {
        match builtin::resolve(&self.database.images(), name) {
            Some(image) => Ok(Some(image)),
            None => self.database.resolve(name, self.handler_platform(handler).as_ref()),
        }
    }

    /// The platform that a runtime handler runs, when it is not this machine's.
    pub(crate) fn handler_platform(&self, handler: &str) -> Option<Platform> {
        self.handler_platforms.read().unwrap_or_else(PoisonError::into_inner).get(handler).cloned()
    }

    /// From now on these handlers run other platforms than this machine's. What was pulled for them stays as it is.
    pub fn set_handler_platforms(&self, platforms: BTreeMap<String, Platform>) {
        *self.handler_platforms.write().unwrap_or_else(PoisonError::into_inner) = platforms;
    }

    /// Keeps what these images need until the lease is dropped, whoever removes them meanwhile. What was removed before
    /// is missing: look after this.
    pub(crate) async fn hold(&self, images: &[&ImageRecord]) -> leases::Lease {
        let needed: Vec<Digest> = images.iter().flat_map(|image| collect::needed(image)).collect();
        let lease = self.leases.open();
        lease.hold(needed).await;
        lease
    }

    /// All images, by id.
    pub fn list(&self) -> Vec<Arc<ImageRecord>> {
        self.database.images().values().cloned().collect()
    }

    /// Images whose layers are not all there: unpacked again from stored blobs, or forgotten.
    async fn recover(self: &Arc<Self>) -> Result<(), ImageError> {
        let mut lost = Vec::new();
        for image in self.list() {
            if image.chain_ids().all(|chain| self.snapshots.has(chain)) {
                continue;
            }
            if let Err(error) = self.unpack_again(&image).await {
                tracing::warn!(image = %image.id, names = ?image.repo_tags, error = error.chain(), "image is lost");
                lost.push(image.id.clone());
            }
        }
        let this = self.clone();
        let clean = move || {
            if !lost.is_empty() {
                this.database.change(|images| {
                    images.retain(|id, _| !lost.contains(id));
                    Ok(())
                })?;
            }
            // What an interrupted pull completed is not fetched again by the next one, for a day.
            this.collect(Some(crate::content::STALE)).map(drop)
        };
        tokio::task::spawn_blocking(clean).await.map_err(|_| ImageError::Worker)?
    }

    async fn unpack_again(self: &Arc<Self>, image: &ImageRecord) -> Result<(), ImageError> {
        use sampan_oci::manifest::{Document, MAX_CONFIG, MAX_MANIFEST};
        let missing = || ImageError::Archive("its manifest or configuration is missing".to_owned());
        let manifest = image.manifest.clone().ok_or_else(missing)?;
        let bytes = self.content.read(&manifest.digest, MAX_MANIFEST)?.ok_or_else(missing)?;
        let bad = |source| ImageError::Manifest { image: image.id.to_string(), source };
        let Document::Manifest(document) =
            Document::parse(&bytes, Some(&manifest.media_type)).map_err(bad)?
        else {
            return Err(missing());
        };
        let config = self.content.read(&document.config.digest, MAX_CONFIG)?.ok_or_else(missing)?;
        let platform = &image.config.platform;
        // An image that names no platform is for all.
        let platform = if platform.os.is_empty() { &self.config.platform } else { platform };
        let plan = self.assemble(&image.id.to_string(), platform, document, manifest, None, &config)?;
        self.obtain_layers(&plan, &None, &progress::Reporter::default()).await
    }

    /// Waits until all layers are on the disk, so that a loss of power does not cost them.
    pub async fn flush(&self) {
        Self::flushed(self.syncing.clone(), self.snapshots.clone()).await;
    }

    async fn flushed(syncing: Arc<tokio::sync::Semaphore>, snapshots: Arc<Snapshots>) {
        let Ok(_permit) = syncing.acquire_owned().await else { return };
        let synced = tokio::task::spawn_blocking(move || snapshots.sync()).await;
        if let Ok(Err(error)) = synced {
            tracing::warn!(error = error.chain(), "cannot flush image layers");
        }
    }

    /// Flushes new layers to the disk behind the pull's back.
    fn sync_later(&self) {
        if self.config.flush {
            tokio::spawn(Self::flushed(self.syncing.clone(), self.snapshots.clone()));
        }
    }
}

/// Now, as records say it.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().round(jiff::Unit::Second).unwrap_or_else(|_| jiff::Timestamp::now()).to_string()
}
