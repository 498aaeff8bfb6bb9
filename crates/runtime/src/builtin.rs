//! `sampan.local/toolbox`: an image made from our own executable, always there.
//!
//! It serves examples, tests and machines without any network. `sampan.local` is a registry host that the
//! runtime answers itself, so every pull policy works with it. Its one layer holds the executable as
//! `/bin/sampan` (a hard link where possible, so it costs nothing) and a link per applet.

mod pack;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sampan_oci::manifest::{ContainerConfig, RootFs};
use sampan_oci::{Descriptor, Digest, ImageConfig, Platform, Reference};

pub(crate) use self::pack::pack;
use crate::images::{ImageError, ImageRecord, ImageStore, LayerRecord};
use crate::snapshots::{LayerInfo, boot_id};

/// The registry host that never leaves this process.
pub const HOST: &str = "sampan.local";
/// The repository of the built-in image.
pub const REPOSITORY: &str = "sampan.local/toolbox";

/// What the built-in image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builtin {
    /// Our own executable (statically linked).
    pub executable: PathBuf,
    /// Names under `/bin` that link to it.
    pub applets: Vec<String>,
    /// What a container of it runs when the pod says nothing.
    pub cmd: Vec<String>,
}

/// Whether a name belongs to the registry host that this process is: nothing from elsewhere may have it.
pub(crate) fn is_ours(name: &Reference) -> bool {
    name.host() == HOST
}

/// Whether a record is the built-in image.
pub fn is_builtin(image: &ImageRecord) -> bool {
    image.manifest.is_none() && image.repo_tags.iter().any(|tag| tag.starts_with(REPOSITORY))
}

/// The built-in image, for any tag of its repository, and for its own digest.
pub(crate) fn resolve(images: &BTreeMap<Digest, Arc<ImageRecord>>, name: &str) -> Option<Arc<ImageRecord>> {
    let reference = Reference::parse(name).ok().filter(|reference| reference.repository() == REPOSITORY)?;
    let image = images.values().find(|image| is_builtin(image))?;
    reference.digest().is_none_or(|digest| *digest == image.id).then(|| image.clone())
}

/// Makes the image when it is missing or was made from another executable. Blocks.
pub(crate) fn install(store: &Arc<ImageStore>) -> Result<(), ImageError> {
    let Some(builtin) = &store.config.builtin else {
        return forget_others(store, None);
    };
    let identity = identity(builtin)?;
    let known = store.database.images().contains_key(&identity);
    if !known || !store.snapshots.has(&identity) {
        if !store.snapshots.has(&identity) {
            make_layer(store, builtin, &identity)?;
        }
        forget_others(store, Some(&identity))?;
        store.database.put(record(builtin, &identity))?;
    }
    forget_others(store, Some(&identity))
}

/// Names the content without reading it: a start must not wait for hashing the executable.
fn identity(builtin: &Builtin) -> Result<Digest, ImageError> {
    let path = &builtin.executable;
    let meta = fs::metadata(path).map_err(|e| ImageError::io("look at", path, e))?;
    let text = format!(
        "toolbox 1 {} {} {} {} {} {:?} {:?}",
        meta.dev(),
        meta.ino(),
        meta.len(),
        meta.mtime(),
        meta.mtime_nsec(),
        builtin.applets,
        builtin.cmd,
    );
    Ok(Digest::sha256(text.as_bytes()))
}

fn forget_others(store: &ImageStore, keep: Option<&Digest>) -> Result<(), ImageError> {
    let stale = |image: &ImageRecord| is_builtin(image) && Some(&image.id) != keep;
    if !store.database.images().values().any(|image| stale(image)) {
        return Ok(());
    }
    let gone = store.database.change(|images| {
        let gone: Vec<_> = images.values().filter(|image| stale(image)).cloned().collect();
        images.retain(|_, image| !stale(image));
        Ok(gone)
    })?;
    for chain in gone.iter().flat_map(|image| image.chain_ids()) {
        store.snapshots.discard(chain)?;
    }
    Ok(())
}

fn make_layer(store: &ImageStore, builtin: &Builtin, identity: &Digest) -> Result<(), ImageError> {
    let staging = store.snapshots.stage(identity)?;
    let root = staging.fs();
    fill(&root, builtin).map_err(|e| ImageError::io("make the built-in image in", &root, e))?;
    let bytes = fs::metadata(&builtin.executable).map_or(0, |m| m.len());
    let info = LayerInfo {
        chain_id: identity.clone(),
        diff_id: identity.clone(),
        bytes,
        inodes: builtin.applets.len() as u64 + 16,
        boot_id: boot_id(),
    };
    store.snapshots.commit(staging, info)
}

fn fill(root: &Path, builtin: &Builtin) -> io::Result<()> {
    for (dir, mode) in [
        ("", 0o755),
        ("bin", 0o755),
        ("dev", 0o755),
        ("etc", 0o755),
        ("home", 0o755),
        ("proc", 0o555),
        ("root", 0o700),
        ("sys", 0o555),
        ("tmp", 0o1777),
        ("var", 0o755),
        ("run", 0o755),
    ] {
        let path = root.join(dir);
        fs::create_dir_all(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    for (file, text) in [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n"),
        ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
        ("etc/nsswitch.conf", "hosts: files dns\n"),
    ] {
        let path = root.join(file);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    }
    place_executable(&builtin.executable, &root.join("bin/sampan"))?;
    for applet in &builtin.applets {
        let safe = !applet.is_empty()
            && !applet.contains('/')
            && applet != "."
            && applet != ".."
            && applet != "sampan";
        if safe {
            symlink("sampan", root.join("bin").join(applet))?;
        }
    }
    Ok(())
}

/// A hard link costs nothing; a file that only root may run, or on another file system, is copied (sharing
/// its blocks where the file system can).
fn place_executable(from: &Path, to: &Path) -> io::Result<()> {
    let real = fs::canonicalize(from)?;
    let meta = fs::metadata(&real)?;
    let everybody = meta.mode() & 0o555 == 0o555 && meta.mode() & 0o6022 == 0 && meta.uid() == 0;
    if everybody && fs::hard_link(&real, to).is_ok() {
        return Ok(());
    }
    fs::copy(&real, to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))
}

fn record(builtin: &Builtin, identity: &Digest) -> ImageRecord {
    let size = fs::metadata(&builtin.executable).map_or(0, |m| m.len());
    let blob = Descriptor { digest: identity.clone(), size, ..Descriptor::of("", b"") };
    ImageRecord {
        id: identity.clone(),
        manifest: None,
        index: None,
        repo_tags: vec![format!("{REPOSITORY}:latest")],
        repo_digests: vec![format!("{REPOSITORY}@{identity}")],
        platform_tags: BTreeMap::new(),
        foreign: false,
        size,
        config: ImageConfig {
            created: String::new(),
            platform: Platform::host(),
            config: ContainerConfig {
                env: vec!["PATH=/bin:/usr/bin:/sbin:/usr/sbin".to_owned()],
                cmd: builtin.cmd.clone(),
                ..ContainerConfig::default()
            },
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![identity.clone()] },
        },
        layers: vec![LayerRecord { blob, diff_id: identity.clone(), chain_id: identity.clone() }],
        pinned: true,
        stored_at: crate::images::now(),
        annotations: BTreeMap::new(),
    }
}
