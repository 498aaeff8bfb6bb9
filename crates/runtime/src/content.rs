//! What registries serve, by digest: `<dir>/blobs/<algorithm>/<hex>`, and `<dir>/ingest/<algorithm>-<hex>` while
//! it arrives.
//!
//! A blob gets its name only after its digest was verified. An interrupted download stays in `ingest` and is
//! continued by the next one. Large blobs are not flushed one by one (a pull would wait for the disk): after
//! a loss of power a blob may be short, which its size tells, or damaged, which everything that reads it
//! notices because it hashes.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sampan_oci::digest::Verifier;
use sampan_oci::{Algorithm, Digest};

use crate::images::ImageError;

/// Interrupted downloads older than this are not continued.
pub(crate) const STALE: Duration = Duration::from_secs(24 * 3600);

/// Blobs on disk.
#[derive(Debug)]
pub(crate) struct ContentStore {
    dir: PathBuf,
}

/// A blob that is arriving.
#[derive(Debug)]
pub(crate) struct Ingest {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    /// Bytes that an earlier, interrupted download left.
    pub(crate) offset: u64,
}

impl ContentStore {
    pub(crate) fn open(dir: impl Into<PathBuf>) -> Result<Self, ImageError> {
        let dir = dir.into();
        for sub in ["blobs/sha256", "blobs/sha384", "blobs/sha512", "ingest"] {
            let path = dir.join(sub);
            fs::create_dir_all(&path).map_err(|e| ImageError::io("create", &path, e))?;
        }
        let store = Self { dir };
        store.collect_stale()?;
        Ok(store)
    }

    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    /// Whether a blob is there, with the size that was promised.
    pub(crate) fn has(&self, digest: &Digest, size: u64) -> bool {
        fs::metadata(self.path(digest)).is_ok_and(|m| m.is_file() && m.len() == size)
    }

    /// A small blob, verified; `None` when it is missing or damaged.
    pub(crate) fn read(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, ImageError> {
        let path = self.path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(ImageError::io("open", &path, e)),
        };
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| ImageError::io("read", &path, e))?;
        let mut verifier = Verifier::new(digest.clone(), None);
        let good = bytes.len() as u64 <= limit
            && verifier.update(&bytes).and_then(|()| verifier.finish().map(|_| ())).is_ok();
        Ok(good.then_some(bytes))
    }

    /// Stores a small blob; the caller verified it. Not flushed: whoever reads it verifies it again.
    pub(crate) fn write(&self, digest: &Digest, bytes: &[u8]) -> Result<(), ImageError> {
        let tmp = self.dir.join("ingest").join(format!("tmp-{:016x}", rand::random::<u64>()));
        fs::write(&tmp, bytes).map_err(|e| {
            let _ = fs::remove_file(&tmp);
            ImageError::io("write", &tmp, e)
        })?;
        self.adopt(&tmp, digest)
    }

    /// Begins or continues a blob. One caller per digest at a time.
    pub(crate) fn ingest(&self, digest: &Digest, size: u64) -> Result<Ingest, ImageError> {
        let path = self.arriving(digest);
        let open =
            |truncate| OpenOptions::new().read(true).write(true).create(true).truncate(truncate).open(&path);
        let mut file = open(false).map_err(|e| ImageError::io("open", &path, e))?;
        let mut offset = file.metadata().map_err(|e| ImageError::io("look at", &path, e))?.len();
        if offset > size {
            file = open(true).map_err(|e| ImageError::io("open", &path, e))?;
            offset = 0;
        }
        Ok(Ingest { file, path, offset })
    }

    /// How many bytes of a blob an interrupted download left.
    pub(crate) fn arrived(&self, digest: &Digest) -> u64 {
        fs::metadata(self.arriving(digest)).map_or(0, |meta| meta.len())
    }

    /// Bytes that may still be written here.
    pub(crate) fn room(&self) -> Result<u64, ImageError> {
        let left = File::open(&self.dir).and_then(|dir| Ok(crate::room::left(&dir)?));
        left.map_err(|e| ImageError::io("look for room in", &self.dir, e))
    }

    fn arriving(&self, digest: &Digest) -> PathBuf {
        self.dir.join("ingest").join(format!("{}-{}", digest.algorithm().name(), digest.hex()))
    }

    /// Throws away what has arrived of a blob.
    pub(crate) fn abandon(&self, digest: &Digest) {
        let _ = fs::remove_file(self.arriving(digest));
    }

    /// Gives a verified blob its name.
    pub(crate) fn commit(&self, ingest: Ingest, digest: &Digest) -> Result<(), ImageError> {
        let place = self.path(digest);
        fs::rename(&ingest.path, &place).map_err(|e| ImageError::io("rename", &place, e))
    }

    /// Moves a verified file of the same file system in.
    pub(crate) fn adopt(&self, file: &Path, digest: &Digest) -> Result<(), ImageError> {
        let place = self.path(digest);
        fs::rename(file, &place).map_err(|e| ImageError::io("rename", &place, e))
    }

    /// A directory in `ingest` for what is not known by digest yet; emptied at the next start.
    pub(crate) fn scratch(&self) -> Result<Scratch, ImageError> {
        tempdir::Scratch::new(&self.dir.join("ingest"))
    }

    pub(crate) fn remove(&self, digest: &Digest) {
        if let Err(error) = fs::remove_file(self.path(digest))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(blob = %digest, %error, "cannot remove a blob");
        }
    }

    /// Removes all blobs, also half ones, but these (and, with an age, younger ones); gives the bytes freed.
    pub(crate) fn retain(&self, keep: &HashSet<Digest>, age: Option<Duration>) -> Result<u64, ImageError> {
        let mut freed = 0;
        for (digest, size) in self.list()? {
            if !keep.contains(&digest) && is_older(&self.path(&digest), age) {
                self.remove(&digest);
                freed += size;
            }
        }
        for (path, digest, size) in self.arriving_blobs()? {
            if !keep.contains(&digest) && is_older(&path, age) {
                self.abandon(&digest);
                freed += size;
            }
        }
        Ok(freed)
    }

    /// Bytes and files.
    pub(crate) fn usage(&self) -> Result<(u64, u64), ImageError> {
        let sizes = self.list()?.into_iter().map(|(_, size)| size);
        let sizes = sizes.chain(self.arriving_blobs()?.into_iter().map(|(_, _, size)| size));
        Ok(sizes.fold((0, 0), |(bytes, files), size| (bytes + size, files + 1)))
    }

    /// What has arrived of blobs that are not complete.
    fn arriving_blobs(&self) -> Result<Vec<(PathBuf, Digest, u64)>, ImageError> {
        let dir = self.dir.join("ingest");
        let entries = fs::read_dir(&dir).map_err(|e| ImageError::io("list", &dir, e))?.flatten();
        let blobs = entries.filter_map(|entry| {
            let digest = entry.file_name().to_str()?.replacen('-', ":", 1).parse().ok()?;
            Some((entry.path(), digest, entry.metadata().ok()?.len()))
        });
        Ok(blobs.collect())
    }

    fn list(&self) -> Result<Vec<(Digest, u64)>, ImageError> {
        let mut blobs = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512] {
            let dir = self.dir.join("blobs").join(algorithm.name());
            for entry in fs::read_dir(&dir).map_err(|e| ImageError::io("list", &dir, e))?.flatten() {
                let name = entry.file_name();
                let digest = name.to_str().and_then(|hex| format!("{}:{hex}", algorithm.name()).parse().ok());
                if let (Some(digest), Ok(meta)) = (digest, entry.metadata()) {
                    blobs.push((digest, meta.len()));
                }
            }
        }
        Ok(blobs)
    }

    fn collect_stale(&self) -> Result<(), ImageError> {
        let dir = self.dir.join("ingest");
        for entry in fs::read_dir(&dir).map_err(|e| ImageError::io("list", &dir, e))?.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            let path = entry.path();
            let result = if meta.is_dir() {
                fs::remove_dir_all(&path)
            } else if is_older(&path, Some(STALE)) || entry.file_name().to_string_lossy().starts_with("tmp-")
            {
                fs::remove_file(&path)
            } else {
                Ok(())
            };
            result.map_err(|e| ImageError::io("remove", &path, e))?;
        }
        Ok(())
    }
}

/// Whether a file was written longer ago; without an age, always.
pub(crate) fn is_older(path: &Path, age: Option<Duration>) -> bool {
    let Some(age) = age else { return true };
    let written = fs::metadata(path).and_then(|m| m.modified());
    written.ok().and_then(|t| SystemTime::now().duration_since(t).ok()).is_some_and(|passed| passed > age)
}

/// Writes a file so that it is either there as a whole, also after a loss of power, or not at all.
pub(crate) fn write_durably(path: &Path, tmp_dir: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    let tmp = tmp_dir.join(format!("tmp-{:016x}", rand::random::<u64>()));
    let result = (|| {
        let mut file = File::create(&tmp).map_err(|e| ImageError::io("create", &tmp, e))?;
        file.write_all(bytes).map_err(|e| ImageError::io("write", &tmp, e))?;
        file.sync_all().map_err(|e| ImageError::io("flush", &tmp, e))?;
        fs::rename(&tmp, path).map_err(|e| ImageError::io("rename", path, e))?;
        let parent = path.parent().unwrap_or(tmp_dir);
        File::open(parent).and_then(|d| d.sync_all()).map_err(|e| ImageError::io("flush", parent, e))
    })();
    if result.is_err() {
        let _ = fs::remove_file(&tmp);
    }
    result
}

pub(crate) use self::tempdir::Scratch;

mod tempdir {
    use std::fs;
    use std::path::{Path, PathBuf};

    use crate::images::ImageError;

    /// A directory that goes with its owner.
    #[derive(Debug)]
    pub(crate) struct Scratch(PathBuf);

    impl Scratch {
        pub(super) fn new(parent: &Path) -> Result<Self, ImageError> {
            let path = parent.join(format!("scratch-{:016x}", rand::random::<u64>()));
            fs::create_dir(&path).map_err(|e| ImageError::io("create", &path, e))?;
            Ok(Self(path))
        }

        pub(crate) fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            if let Err(error) = fs::remove_dir_all(&self.0) {
                tracing::debug!(dir = %self.0.display(), %error, "cannot remove a scratch directory");
            }
        }
    }
}
