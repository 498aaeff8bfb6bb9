//! An archive on disk: its files, by their names in it.
//!
//! Whoever wrote it decides how many there are, what they are called and what they weigh; all three have bounds.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sampan_oci::codec::Decoder;
use sampan_oci::digest::Hasher;
use sampan_oci::{Algorithm, Descriptor, Digest};
use tar::EntryType;

use crate::images::ImageError;
use crate::network::chain;
use crate::room::Room;
use crate::unpack::UnpackError;
use crate::unpack::tar::{Entry, TarReader};

/// The most files, links and directories of an archive.
const MAX_FILES: usize = 20_000;
/// The longest name in an archive, in bytes.
const MAX_NAME: usize = 4096;
/// All names in an archive together, in bytes: each stays in memory until the last image is loaded.
const MAX_NAMES: usize = 8 << 20;

/// Bytes read at a time.
const BUFFER: usize = 256 << 10;

/// A file of the archive.
pub(super) struct Spooled {
    pub(super) path: PathBuf,
    pub(super) digest: Digest,
    size: u64,
}

/// An archive on disk: files by their names in it, and links among them.
#[derive(Default)]
pub(super) struct Archive {
    files: HashMap<String, Spooled>,
    links: HashMap<String, String>,
}

impl Archive {
    /// A file by its name, through links.
    pub(super) fn get(&self, name: &str) -> Option<&Spooled> {
        let mut name = clean(name.as_bytes(), "");
        for _ in 0..8 {
            if let Some(file) = self.files.get(&name) {
                return Some(file);
            }
            name = self.links.get(&name)?.clone();
        }
        None
    }

    pub(super) fn by_digest(&self, digest: &Digest) -> Option<&Spooled> {
        let named = self.get(&format!("blobs/{}/{}", digest.algorithm().name(), digest.hex()));
        named
            .filter(|file| file.digest == *digest)
            .or_else(|| self.files.values().find(|f| f.digest == *digest))
    }
}

impl Spooled {
    pub(super) fn read(&self, limit: u64) -> Result<Vec<u8>, ImageError> {
        if self.size > limit {
            return Err(ImageError::Archive(format!("a document in it has {} bytes", self.size)));
        }
        std::fs::read(&self.path).map_err(|e| ImageError::io("read", &self.path, e))
    }

    pub(super) fn descriptor(&self, media_type: &str) -> Descriptor {
        Descriptor { digest: self.digest.clone(), size: self.size, ..Descriptor::of(media_type, b"") }
    }
}

/// Writes all files of the archive into `dir`, under names of our own.
///
/// # Errors
/// When it cannot be read, has more of anything than may be, or does not leave enough room to others.
pub(super) fn spool(reader: impl Read, dir: &Path, max_bytes: u64) -> Result<Archive, ImageError> {
    let decoder = Decoder::new(reader).map_err(unreadable)?;
    let mut tar = TarReader::new(decoder);
    let mut archive = Archive::default();
    let buffer = vec![0; BUFFER];
    let mut spool = Spool { dir, max_bytes, written: 0, entries: 0, names: 0, room: Room::default(), buffer };
    while let Some(entry) = tar.next_entry().map_err(damaged)? {
        spool.admit(&entry)?;
        let name = clean(&entry.path, "");
        match entry.kind {
            EntryType::Regular | EntryType::Continuous => {
                let file = spool.write(&mut tar)?;
                if file.size != entry.size {
                    return Err(damaged(tar.cut()));
                }
                archive.files.insert(name, file);
            }
            EntryType::Symlink | EntryType::Link => {
                // A symbolic link begins at its directory, a hard link at the root.
                let base = match name.rsplit_once('/') {
                    Some((dir, _)) if entry.kind == EntryType::Symlink => dir,
                    _ => "",
                };
                let target = clean(&entry.link.unwrap_or_default(), base);
                archive.links.insert(name, target);
            }
            _ => {}
        }
    }
    Ok(archive)
}

/// What was taken of an archive so far.
struct Spool<'a> {
    dir: &'a Path,
    max_bytes: u64,
    written: u64,
    /// All of them, also those whose name came twice: a file is never written over another one, whose digest is known
    /// already.
    entries: usize,
    names: usize,
    room: Room,
    buffer: Vec<u8>,
}

impl Spool<'_> {
    /// Counts an entry.
    fn admit(&mut self, entry: &Entry) -> Result<(), ImageError> {
        let lengths = [entry.path.len(), entry.link.as_ref().map_or(0, Vec::len)];
        if lengths.into_iter().any(|length| length > MAX_NAME) {
            return Err(ImageError::Archive(format!("has a name of more than {MAX_NAME} bytes")));
        }
        self.entries += 1;
        self.names += lengths.into_iter().sum::<usize>();
        if self.entries > MAX_FILES {
            return Err(ImageError::Archive(format!("has more than {MAX_FILES} files")));
        }
        if self.names > MAX_NAMES {
            return Err(ImageError::Archive(format!("has names of more than {} MiB", MAX_NAMES >> 20)));
        }
        Ok(())
    }

    /// Writes the file that the archive is at.
    fn write(&mut self, tar: &mut TarReader<impl Read>) -> Result<Spooled, ImageError> {
        let path = self.dir.join(self.entries.to_string());
        let mut file = File::create(&path).map_err(|e| ImageError::io("create", &path, e))?;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut size = 0u64;
        loop {
            let n = tar.read(&mut self.buffer).map_err(unreadable)?;
            if n == 0 {
                return Ok(Spooled { path, digest: hasher.finish(), size });
            }
            let data = &self.buffer[..n];
            hasher.update(data);
            let room = self.room.take(&file, n as u64).map_err(io::Error::from);
            let written = room.and_then(|()| file.write_all(data));
            written.map_err(|e| ImageError::io("write", &path, e))?;
            size += n as u64;
            self.written += n as u64;
            if self.written > self.max_bytes.saturating_mul(4) {
                return Err(ImageError::Archive("is too large".to_owned()));
            }
        }
    }
}

fn damaged(error: UnpackError) -> ImageError {
    ImageError::Archive(chain(&error))
}

fn unreadable(error: io::Error) -> ImageError {
    ImageError::Archive(format!("cannot be read: {error}"))
}

/// A name within the archive, without `.` and `..`.
fn clean(path: &[u8], base: &str) -> String {
    let text = String::from_utf8_lossy(path);
    let mut parts: Vec<&str> = if text.starts_with('/') { Vec::new() } else { base.split('/').collect() };
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.retain(|part| !part.is_empty());
    parts.join("/")
}
