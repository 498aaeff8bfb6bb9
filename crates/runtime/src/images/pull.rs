//! From a name to an image in the store.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures::future::try_join_all;
use sampan_oci::manifest::{Document, MAX_CONFIG, MAX_MANIFEST};
use sampan_oci::registry::Session;
use sampan_oci::{Descriptor, Digest, ImageConfig, Manifest, Platform, Reference};
use tokio::sync::Semaphore;

use super::collect::needed;
use super::layer::{HEAVY, LayerPlan, LayerResult, LayerWork, Origin, Told};
use super::leases::Lease;
use super::progress::Reporter;
use super::{ImageError, ImageRecord, ImageStore, LayerProgress, LayerRecord, LayerState, PullRequest};
use crate::builtin;

/// How many indexes deep an image may lie; digests make circles impossible, but not long ways.
pub(super) const MAX_INDEXES: usize = 3;

/// What a pull asks, and what it may believe without asking.
struct Wanted<'a> {
    reference: &'a Reference,
    session: &'a Session,
    platform: &'a Platform,
    /// Documents that came from this repository before. Others that are here were shown to other people: their digest
    /// alone, which is no secret, opens nothing, so the registry has to give them once more.
    shown: HashSet<Digest>,
}

/// Everything about an image but its layers' content.
pub(super) struct Plan {
    pub(super) manifest: Descriptor,
    pub(super) index: Option<Descriptor>,
    pub(super) config: ImageConfig,
    pub(super) config_descriptor: Descriptor,
    pub(super) layers: Vec<LayerRecord>,
    pub(super) annotations: BTreeMap<String, String>,
}

impl ImageStore {
    /// Pulls an image: resolves the name at its registry, fetches what is not here yet (IMG-53), and records
    /// the image once every digest was verified and every layer unpacked. Dropping the future stops it;
    /// what arrived is kept for the next time.
    pub async fn pull(self: &Arc<Self>, request: PullRequest) -> Result<Arc<ImageRecord>, ImageError> {
        let reference = Reference::parse(&request.image)?;
        if reference.host() == builtin::HOST {
            return self.resolve(&request.image)?.ok_or(ImageError::NoBuiltin(request.image));
        }
        let reporter = Reporter::new(request.progress);
        let session =
            self.registry.session(&reference, request.credentials).with_mirror_logins(request.mirrors);
        let foreign = self.handler_platform(&request.handler);
        let foreign = foreign.as_ref();
        let platform = foreign.unwrap_or(&self.config.platform);
        // Also for a digest that is here: whether the credentials are good for it is the registry's to say.
        let target = match session.resolve(&reference.version()).await {
            Ok(found) => reference.digest().cloned().or(found),
            // It may not know this kind of request; and its own words come only with the other kind.
            Err(error) if error.is_refusal() => None,
            Err(error) => return Err(error.into()),
        };
        let shown = self.shown_by(&reference);
        let wanted = Wanted { reference: &reference, session: &session, platform, shown };
        let lease = self.leases.open();
        if let Some(digest) = &target
            && let Some(candidate) = self.complete_image(digest, &wanted)
        {
            // It may be removed at this moment: what a look finds after this stays.
            lease.hold(needed(&candidate)).await;
            if let Some(image) = self.complete_image(digest, &wanted) {
                reporter.start(exists(&image));
                return self.record_again(&image, &reference, foreign, digest, lease).await;
            }
        }
        let (plan, resolved) = self.plan(&wanted, target.as_ref(), &lease).await?;
        let obtained = match self.room_for(&plan) {
            Ok(()) => self.obtain_layers(&plan, &Some(session), &reporter).await,
            Err(error) => Err(error),
        };
        if let Err(error) = obtained {
            drop(lease);
            if error.is_disk_full() {
                self.give_back();
            }
            return Err(error);
        }
        let mut record = self.record(plan, &reference, Some(&resolved));
        for_platform(&mut record, foreign);
        let this = self.clone();
        // The lease goes with the record, also when nobody waits for it any more.
        let put = tokio::task::spawn_blocking(move || {
            let _lease = lease;
            this.database.put(record)
        });
        let image = put.await.map_err(|_| ImageError::Worker)??;
        self.sync_later();
        Ok(image)
    }

    /// The documents of images that have a name in the reference's repository.
    fn shown_by(&self, reference: &Reference) -> HashSet<Digest> {
        let of_repository = |name: &str| {
            let rest = name.strip_prefix(reference.repository());
            rest.is_some_and(|rest| rest.starts_with([':', '@']))
        };
        let mut shown = HashSet::new();
        for image in self.database.images().values().filter(|image| image.names().any(of_repository)) {
            shown.insert(image.id.clone());
            shown.extend([&image.manifest, &image.index].into_iter().flatten().map(|d| d.digest.clone()));
        }
        shown
    }

    /// An image that this digest (of a manifest or an index) means, if all of it is here and its repository showed it.
    fn complete_image(&self, digest: &Digest, wanted: &Wanted<'_>) -> Option<Arc<ImageRecord>> {
        let platform = wanted.platform;
        let manifest = self.selected(digest, platform)?;
        if !wanted.shown.contains(digest) || !wanted.shown.contains(&manifest) {
            return None;
        }
        let images = self.database.images();
        let fits = |of: &Platform| of.os.is_empty() || platform.rank(of).is_some();
        let image = images.values().find(|image| {
            image.manifest.as_ref().is_some_and(|own| own.digest == manifest) && fits(&image.config.platform)
        })?;
        image.chain_ids().all(|chain| self.snapshots.has(chain)).then(|| image.clone())
    }

    /// The manifest that a stored document means on a platform: itself, or what an index has for it. An index that is
    /// here may have been pulled for another platform.
    fn selected(&self, digest: &Digest, platform: &Platform) -> Option<Digest> {
        let mut digest = digest.clone();
        for _ in 0..=MAX_INDEXES {
            let bytes = self.content.read(&digest, MAX_MANIFEST).ok()??;
            match Document::parse(&bytes, None).ok()? {
                Document::Manifest(_) => return Some(digest),
                Document::Index(index) => digest = index.select(platform).ok()?.digest.clone(),
            }
        }
        None
    }

    /// Only the names may be new.
    async fn record_again(
        self: &Arc<Self>,
        image: &Arc<ImageRecord>,
        reference: &Reference,
        foreign: Option<&Platform>,
        digest: &Digest,
        lease: Lease,
    ) -> Result<Arc<ImageRecord>, ImageError> {
        let mut record = (**image).clone();
        record.repo_tags = reference.repo_tag().into_iter().collect();
        record.platform_tags.clear();
        record.repo_digests = vec![reference.repo_digest(digest)];
        for_platform(&mut record, foreign);
        let known = |names: &[String], of: &[String]| names.iter().all(|name| of.contains(name));
        if known(record.tags_for(foreign), image.tags_for(foreign))
            && known(&record.repo_digests, &image.repo_digests)
            && image.is_for(foreign)
        {
            return Ok(image.clone());
        }
        let this = self.clone();
        let put = move || {
            let _lease = lease;
            this.database.put(record)
        };
        tokio::task::spawn_blocking(put).await.map_err(|_| ImageError::Worker)?
    }

    /// Looks whether what is to be fetched fits on the disk: better known now than after an hour.
    fn room_for(&self, plan: &Plan) -> Result<(), ImageError> {
        let mut seen = HashSet::new();
        let missing = plan.layers.iter().filter(|layer| {
            let blob = &layer.blob;
            seen.insert(&blob.digest)
                && !self.snapshots.has(&layer.chain_id)
                && !self.content.has(&blob.digest, blob.size)
        });
        let needs =
            missing.map(|layer| layer.blob.size.saturating_sub(self.content.arrived(&layer.blob.digest)));
        let needs = needs.fold(0, u64::saturating_add);
        let left = self.content.room()?;
        if needs > left {
            return Err(ImageError::DiskFull { path: self.config.dir.clone(), room: Some((needs, left)) });
        }
        Ok(())
    }

    /// A disk that is full needs what a pull brought in vain, and what others left. (Threads that are still at it find
    /// their files gone.)
    fn give_back(self: &Arc<Self>) {
        let this = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = this.collect(None) {
                tracing::warn!(error = error.chain(), "cannot remove what a failed pull left");
            }
        });
    }

    /// Fetches the documents: index, manifest, configuration. Gives the digest that the name means, too.
    /// `target` is what the registry just said that it means: when that came from it before, it is not fetched.
    async fn plan(
        self: &Arc<Self>,
        wanted: &Wanted<'_>,
        target: Option<&Digest>,
        lease: &Lease,
    ) -> Result<(Plan, Digest), ImageError> {
        let Wanted { reference, session, platform, shown } = wanted;
        let image = reference.to_string();
        if let Some(digest) = target {
            lease.hold([digest.clone()]).await;
        }
        let version = target.map_or_else(|| reference.version(), Digest::to_string);
        let (bytes, top) = self.manifest_bytes(wanted, &version, target).await?;
        lease.hold([top.digest.clone()]).await;
        self.content.write(&top.digest, &bytes)?;
        let resolved = top.digest.clone();
        let bad = |source| ImageError::Manifest { image: image.clone(), source };
        let (mut document, mut descriptor) = (Document::parse(&bytes, Some(&top.media_type)), top.clone());
        let mut depth = 0;
        let manifest = loop {
            let index = match document.map_err(bad)? {
                Document::Manifest(manifest) => break manifest,
                Document::Index(_) if depth == MAX_INDEXES => {
                    return Err(ImageError::NestedIndex { image, digest: descriptor.digest });
                }
                Document::Index(index) => index,
            };
            depth += 1;
            let entry = index.select(platform).map_err(bad)?.clone();
            let (bytes, found) =
                self.manifest_bytes(wanted, &entry.digest.to_string(), Some(&entry.digest)).await?;
            descriptor = Descriptor { platform: entry.platform, ..found };
            lease.hold([descriptor.digest.clone()]).await;
            self.content.write(&descriptor.digest, &bytes)?;
            document = Document::parse(&bytes, Some(&descriptor.media_type));
        };
        let index = (depth > 0).then_some(top);
        let known = if shown.contains(&manifest.config.digest) {
            self.content.read(&manifest.config.digest, MAX_CONFIG)?
        } else {
            None
        };
        let config_bytes = match known {
            Some(bytes) => bytes,
            None => session.blob_bytes(&manifest.config, MAX_CONFIG).await?,
        };
        let plan = self.assemble(&image, platform, manifest, descriptor, index, &config_bytes)?;
        lease.hold(plan.digests()).await;
        self.content.write(&plan.config_descriptor.digest, &config_bytes)?;
        Ok((plan, resolved))
    }

    async fn manifest_bytes(
        &self,
        wanted: &Wanted<'_>,
        version: &str,
        digest: Option<&Digest>,
    ) -> Result<(Vec<u8>, Descriptor), ImageError> {
        if let Some(digest) = digest
            && wanted.shown.contains(digest)
            && let Some(bytes) = self.content.read(digest, MAX_MANIFEST)?
        {
            let document = Document::parse(&bytes, None);
            let media_type = document.as_ref().map_or("", Document::media_type);
            let found = Descriptor { digest: digest.clone(), ..Descriptor::of(media_type, &bytes) };
            return Ok((bytes, found));
        }
        let fetched = wanted.session.manifest(version).await?;
        Ok((fetched.bytes.to_vec(), fetched.descriptor()))
    }

    /// Checks that manifest and configuration belong together and names the layers.
    pub(super) fn assemble(
        &self,
        image: &str,
        platform: &Platform,
        manifest: Manifest,
        descriptor: Descriptor,
        index: Option<Descriptor>,
        config_bytes: &[u8],
    ) -> Result<Plan, ImageError> {
        use sampan_oci::manifest::ManifestError;
        let bad = |source| ImageError::Manifest { image: image.to_owned(), source };
        let config_type = &manifest.config.media_type;
        let foreign = !config_type.is_empty()
            && !config_type.contains("image.config")
            && !config_type.contains("container.image")
            && config_type != "application/octet-stream"
            && config_type != "application/json";
        if foreign {
            return Err(bad(ManifestError::NotAnImage(config_type.clone())));
        }
        let config = ImageConfig::parse(config_bytes).map_err(bad)?;
        let found = &config.platform;
        if !found.os.is_empty() && !found.architecture.is_empty() && platform.rank(found).is_none() {
            let wanted = platform.clone();
            return Err(ImageError::Platform { image: image.to_owned(), found: found.clone(), wanted });
        }
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            let (layers, diff_ids) = (manifest.layers.len(), diff_ids.len());
            return Err(bad(ManifestError::LayerCount { layers, diff_ids }));
        }
        let mut layers: Vec<LayerRecord> = Vec::with_capacity(diff_ids.len());
        for (blob, diff_id) in manifest.layers.iter().zip(diff_ids) {
            let chain_id = Digest::chain(layers.last().map(|layer| &layer.chain_id), diff_id);
            layers.push(LayerRecord { blob: blob.clone(), diff_id: diff_id.clone(), chain_id });
        }
        Ok(Plan {
            manifest: descriptor,
            index,
            config,
            config_descriptor: manifest.config,
            layers,
            annotations: manifest.annotations,
        })
    }

    /// All layers, some at a time; each once, also when several pulls want it.
    pub(super) async fn obtain_layers(
        self: &Arc<Self>,
        plan: &Plan,
        origin: &Origin,
        reporter: &Reporter,
    ) -> Result<(), ImageError> {
        reporter.start(plan.layers.iter().map(waiting).collect());
        let permits = Arc::new(Semaphore::new(self.config.parallel_layers.max(1) * HEAVY as usize));
        let first = self.try_layers(plan, origin, reporter, &permits, true).await;
        let Err((error, joined)) = first else { return Ok(()) };
        if !joined {
            return Err(unshare(error));
        }
        // Another pull's work failed, perhaps because of its credentials: try with ours.
        tracing::debug!(%error, "a shared layer failed; trying alone");
        self.try_layers(plan, origin, reporter, &permits, false).await.map_err(|(error, _)| unshare(error))
    }

    async fn try_layers(
        self: &Arc<Self>,
        plan: &Plan,
        origin: &Origin,
        reporter: &Reporter,
        permits: &Arc<Semaphore>,
        join: bool,
    ) -> Result<(), (Arc<ImageError>, bool)> {
        let mut below = None;
        let mut works = Vec::with_capacity(plan.layers.len());
        let mut parents: Vec<Digest> = Vec::new();
        for layer in &plan.layers {
            let layer_plan = LayerPlan { layer: layer.clone(), parents: parents.clone() };
            let work = self.layer_work(&layer_plan, origin, permits, below.take(), join);
            below = Some(work.work.clone());
            works.push(work);
            parents.push(layer.chain_id.clone());
        }
        try_join_all(works.into_iter().enumerate().map(|(i, work)| report(i, work, reporter))).await?;
        Ok(())
    }

    pub(super) fn record(&self, plan: Plan, reference: &Reference, resolved: Option<&Digest>) -> ImageRecord {
        let size = plan.manifest.size
            + plan.config_descriptor.size
            + plan.layers.iter().map(|layer| layer.blob.size).sum::<u64>();
        ImageRecord {
            id: plan.config_descriptor.digest,
            manifest: Some(plan.manifest),
            index: plan.index,
            repo_tags: reference.repo_tag().into_iter().collect(),
            repo_digests: resolved.map(|digest| reference.repo_digest(digest)).into_iter().collect(),
            platform_tags: BTreeMap::new(),
            foreign: false,
            size,
            config: plan.config,
            layers: plan.layers,
            pinned: false,
            stored_at: super::now(),
            annotations: plan.annotations,
        }
    }
}

/// Names that a handler's platform asked for are that platform's.
fn for_platform(record: &mut ImageRecord, foreign: Option<&Platform>) {
    if let Some(platform) = foreign {
        let tags = std::mem::take(&mut record.repo_tags);
        record.platform_tags.insert(platform.to_string(), tags);
    }
    record.foreign = foreign.is_some();
}

impl Plan {
    /// Everything that must not be collected while the image is on its way.
    pub(super) fn digests(&self) -> HashSet<Digest> {
        let mut all = HashSet::from([self.manifest.digest.clone(), self.config_descriptor.digest.clone()]);
        for layer in &self.layers {
            all.insert(layer.blob.digest.clone());
            all.insert(layer.chain_id.clone());
        }
        all
    }
}

/// Waits for a layer and passes on what it tells.
async fn report(i: usize, layer: LayerWork, reporter: &Reporter) -> Result<(), (Arc<ImageError>, bool)> {
    let LayerWork { mut work, mut told, joined } = layer;
    let tell = |told: Told| reporter.layer(i, told.state, told.arrived, told.unpacked);
    let result: LayerResult = loop {
        tokio::select! {
            biased;
            result = &mut work => break result,
            changed = told.changed() => match changed {
                Ok(()) => tell(*told.borrow_and_update()),
                Err(_) => break (&mut work).await,
            },
        }
    };
    tell(*told.borrow());
    result.map_err(|error| (error, joined))
}

fn waiting(layer: &LayerRecord) -> LayerProgress {
    LayerProgress {
        digest: layer.blob.digest.clone(),
        total: layer.blob.size,
        done: 0,
        unpacked: 0,
        state: LayerState::Waiting,
    }
}

fn exists(image: &ImageRecord) -> Vec<LayerProgress> {
    image
        .layers
        .iter()
        .map(|layer| LayerProgress { done: layer.blob.size, state: LayerState::Exists, ..waiting(layer) })
        .collect()
}

fn unshare(error: Arc<ImageError>) -> ImageError {
    Arc::try_unwrap(error).unwrap_or_else(ImageError::Shared)
}

#[cfg(test)]
mod tests;
