//! `<data-dir>/images/`: archives, and directories of OCI layouts, that are loaded when the server starts, and when
//! they appear.
//!
//! For machines without a registry: who copies an archive there has its images, pinned, because nobody could
//! pull them again. A directory is complete when it is moved there; one that is filled in place is loaded at the
//! next start. An archive that was loaded before is not read again, unless it changed or its images are
//! gone.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use sampan_oci::Digest;
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use super::layout::{is_layout, pack};
use super::{ImageError, ImageStore};
use crate::content::write_durably;

/// File names that are archives.
const ENDINGS: [&str; 8] = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.zstd", ".oci", ".tar.xz"];

/// `<dir>/images/preloaded.json`: what was loaded from which state of a file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Loaded(BTreeMap<String, Archive>);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Archive {
    /// Time of writing, size and inode.
    stamp: String,
    images: Vec<Digest>,
}

impl ImageStore {
    /// Loads the archives in `dir` (made when missing), and what appears there until `shutdown`. What is wrong
    /// with one of them is logged: it must not keep a node from starting.
    pub async fn preload(self: Arc<Self>, dir: PathBuf, shutdown: CancellationToken) {
        if let Err(error) = self.watch_archives(&dir, &shutdown).await {
            let dir = dir.display();
            tracing::warn!(%dir, %error, "image archives are not watched; restart to load new ones");
        }
    }

    async fn watch_archives(self: &Arc<Self>, dir: &Path, shutdown: &CancellationToken) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        // Before the first look, so that nothing that comes in between is missed.
        let events = Events::of(dir)?;
        let mut names = archives(dir)?;
        loop {
            for name in names {
                self.preload_one(dir, &name).await;
            }
            names = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                changed = events.next() => match changed? {
                    Some(names) => names.into_iter().filter(|name| is_source(dir, name)).collect(),
                    // More changes than the kernel kept.
                    None => archives(dir)?,
                },
            };
        }
    }

    async fn preload_one(self: &Arc<Self>, dir: &Path, name: &str) {
        let path = dir.join(name);
        // Gone again, or moved away.
        let Ok(stamp) = stamp(&path) else { return };
        let record = self.config.dir.join("images/preloaded.json");
        let mut loaded = read(&record);
        let here = |images: &[Digest]| images.iter().all(|id| self.database.images().contains_key(id));
        if loaded.0.get(name).is_some_and(|known| known.stamp == stamp && here(&known.images)) {
            return;
        }
        let started = std::time::Instant::now();
        match self.load_and_pin(&path).await {
            Ok(images) => {
                let archive = path.display();
                tracing::info!(%archive, count = images.len(), elapsed = ?started.elapsed(), "images loaded");
                loaded.0.insert(name.to_owned(), Archive { stamp, images });
                loaded.0.retain(|name, _| dir.join(name).exists());
                let text = serde_json::to_vec(&loaded).expect("names and digests serialise");
                let parent = record.parent().unwrap_or(&record);
                if let Err(error) = write_durably(&record, parent, &text) {
                    tracing::warn!(error = error.chain(), "the next start loads the archives again");
                }
            }
            Err(error) => {
                tracing::warn!(archive = %path.display(), error = error.chain(), "image archive");
            }
        }
    }

    async fn load_and_pin(self: &Arc<Self>, path: &Path) -> Result<Vec<Digest>, ImageError> {
        let failed = Arc::new(OnceLock::new());
        let file = if path.is_dir() { pack(path, failed.clone()) } else { fs::File::open(path) };
        let file = file.map_err(|e| ImageError::io("open", path, e))?;
        let loaded = self.load(file).await;
        if let Some(error) = failed.get() {
            return Err(ImageError::io("read", path, io::Error::other(error.clone())));
        }
        let images: Vec<Digest> = loaded?.iter().map(|image| image.id.clone()).collect();
        for id in &images {
            self.set_pinned(&id.to_string(), true).await?;
        }
        Ok(images)
    }
}

fn read(record: &Path) -> Loaded {
    let text = fs::read(record).unwrap_or_default();
    // Whatever is wrong with it: the archives are loaded again.
    serde_json::from_slice(&text).unwrap_or_default()
}

fn stamp(path: &Path) -> io::Result<String> {
    let mut meta = fs::metadata(path)?;
    if meta.is_dir() {
        // What a layout holds changes with its index.
        meta = fs::metadata(path.join("index.json")).or_else(|_| fs::metadata(path.join("manifest.json")))?;
    }
    if !meta.is_file() {
        return Err(io::Error::other("not a file"));
    }
    Ok(format!("{}.{:09}-{}-{}", meta.mtime(), meta.mtime_nsec(), meta.len(), meta.ino()))
}

/// The archives and layouts in a directory, by name.
fn archives(dir: &Path) -> io::Result<Vec<String>> {
    let names = fs::read_dir(dir)?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| is_source(dir, name)).collect();
    names.sort();
    Ok(names)
}

fn is_source(dir: &Path, name: &str) -> bool {
    is_archive(name) || !is_hidden(name) && is_layout(&dir.join(name))
}

fn is_archive(name: &str) -> bool {
    !is_hidden(name) && ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Hidden files are somebody's unfinished copies.
fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
}

/// Files that were written or moved into a directory.
struct Events(AsyncFd<OwnedFd>);

impl Events {
    fn of(dir: &Path) -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        inotify::add_watch(&fd, dir, WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for others' descriptors; ours is owned and never replaced"
        )]
        Ok(Self(AsyncFd::new(fd)?))
    }

    /// The names of the next ones; `None` when some may have been missed.
    async fn next(&self) -> io::Result<Option<Vec<String>>> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|fd| read_events(fd.get_ref())) {
                Ok(names) => return names,
                // Not ready after all.
                Err(_) => continue,
            }
        }
    }
}

fn read_events(fd: &OwnedFd) -> io::Result<Option<Vec<String>>> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(fd, &mut buffer);
    let mut names = Vec::new();
    loop {
        let event = reader.next()?;
        if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
            return Ok(None);
        }
        let name = event.file_name().map(|name| {
            let bytes = name.to_bytes().to_vec();
            <OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes)
        });
        names.extend(name.and_then(|name| name.into_string().ok()));
        if reader.is_buffer_empty() {
            return Ok(Some(names));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_archives() {
        for good in ["a.tar", "k3s-airgap-images-amd64.tar.zst", "x.tgz", "b.tar.gz"] {
            assert!(is_archive(good), "{good}");
        }
        for bad in [".a.tar.swp", ".a.tar", "list.txt", "tar", "a.tar.part"] {
            assert!(!is_archive(bad), "{bad}");
        }
    }
}
