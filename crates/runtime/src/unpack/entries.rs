//! One tar entry after the other becomes a file.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io::BufRead;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, Timestamps};
use rustix::io::Errno;
use tar::EntryType;

use super::error::{UnpackError, shown};
use super::tar::{Entry, TarReader};
use super::tree::{self, Dir, Tree};
use super::whiteout::{self, Whiteout};
use super::{UnpackLimits, Unpacked, files, metadata};
use crate::room::Room;

/// The most hard links to lower layers that are kept for later.
const MAX_DANGLING: usize = 100_000;
/// What any entry takes on the disk.
const SMALLEST: u64 = 4096;

pub(super) struct Unpacker {
    tree: Tree,
    limits: UnpackLimits,
    seen: u64,
    bytes: u64,
    inodes: u64,
    /// Times of directories: set at the end, because making files in them changes them.
    times: BTreeMap<PathBuf, Timestamps>,
    dangling: Vec<(PathBuf, Arc<Path>)>,
    /// Which of them has a name.
    late: HashMap<PathBuf, usize>,
    room: Room,
}

impl Unpacker {
    pub(super) fn new(dir: &Path, limits: &UnpackLimits) -> Result<Self, UnpackError> {
        Ok(Self {
            tree: Tree::new(dir, limits)?,
            limits: limits.clone(),
            seen: 0,
            bytes: 0,
            inodes: 0,
            times: BTreeMap::new(),
            dangling: Vec::new(),
            late: HashMap::new(),
            room: Room::default(),
        })
    }

    pub(super) fn entry<R: BufRead>(
        &mut self,
        entry: Entry,
        tar: &mut TarReader<R>,
    ) -> Result<(), UnpackError> {
        self.seen += 1 + entry.extensions;
        if self.seen > self.limits.max_entries {
            return Err(UnpackError::TooManyEntries { limit: self.limits.max_entries });
        }
        // The sum of stored bytes is bounded by the stream; a sparse file's length is not.
        if entry.length > self.limits.max_bytes
            || self.bytes.saturating_add(entry.size) > self.limits.max_bytes
        {
            return Err(UnpackError::TooLarge { limit: self.limits.max_bytes });
        }
        self.room.take(self.tree.root(), SMALLEST).map_err(|e| UnpackError::io(&entry.path, "write", e))?;
        let components = tree::components(&entry.path)?;
        let Some((name, parents)) = components.split_last() else {
            return self.root(&entry);
        };
        let kind = whiteout::of(name)?;
        if kind == Some(Whiteout::Ignored) {
            return Ok(());
        }
        let dir = self.tree.directory(parents)?;
        match kind {
            Some(Whiteout::Opaque) => {
                return whiteout::set_opaque(&dir)
                    .map_err(|e| UnpackError::io(&entry.path, "mark opaque", e));
            }
            Some(Whiteout::Name(hidden)) => {
                let made = whiteout::hide(&dir, hidden)
                    .map_err(|e| UnpackError::io(&entry.path, "make whiteout", e))?;
                self.inodes += u64::from(made);
                return Ok(());
            }
            Some(Whiteout::Ignored) | None => {}
        }
        self.inodes += 1;
        if entry.kind != EntryType::Directory {
            self.tree.forget(&components);
        }
        match entry.kind {
            EntryType::Directory => self.directory(&dir, name, &entry),
            EntryType::Link => self.hard_link(&dir, name, &entry),
            EntryType::Symlink => {
                let target = entry.link.clone().unwrap_or_default();
                if target.is_empty() || target.len() > 4095 || target.contains(&0) {
                    return Err(UnpackError::path(&entry.path, "a symbolic link to nowhere"));
                }
                self.replace(&dir, name, &entry, "create link", |dir, name| {
                    rustix::fs::symlinkat(OsStr::from_bytes(&target), dir, name)
                })?;
                metadata::apply_named(&dir, name, &entry, false)
            }
            EntryType::Char => self.node(&dir, name, &entry, FileType::CharacterDevice),
            EntryType::Block => self.node(&dir, name, &entry, FileType::BlockDevice),
            EntryType::Fifo => self.node(&dir, name, &entry, FileType::Fifo),
            // Unknown types are to be treated as regular files (POSIX).
            _ => {
                let fd = files::write(&dir, name, &entry, tar, &mut self.room)?;
                self.bytes += entry.size.next_multiple_of(4096);
                metadata::apply_open(&fd, &entry)?;
                rustix::fs::futimens(&fd, &metadata::times(&entry))
                    .map_err(|e| UnpackError::io(&entry.path, "set time", e))
            }
        }
    }

    /// `./`: the root directory itself.
    fn root(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        if entry.kind != EntryType::Directory {
            return Err(UnpackError::path(&entry.path, "the root is not a directory"));
        }
        metadata::apply_open(self.tree.root(), entry)?;
        self.times.insert(PathBuf::new(), metadata::times(entry));
        Ok(())
    }

    fn directory(&mut self, dir: &Dir, name: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let os = OsStr::from_bytes(name);
        let bad = |operation| move |e: Errno| UnpackError::io(&entry.path, operation, e);
        self.bytes += 4096;
        let opened = match rustix::fs::mkdirat(dir, os, metadata::first_mode(entry)) {
            Ok(()) => tree::open_step(dir, name).map_err(bad("open directory"))?,
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(dir, os, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(bad("look at directory"))?;
                let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                if !is_dir {
                    tree::remove(dir, name).map_err(bad("replace"))?;
                    rustix::fs::mkdirat(dir, os, metadata::first_mode(entry))
                        .map_err(bad("create directory"))?;
                }
                let opened = tree::open_step(dir, name).map_err(bad("open directory"))?;
                if whiteout::is_whiteout(&stat) {
                    whiteout::set_opaque(&opened).map_err(bad("mark opaque"))?;
                }
                opened
            }
            Err(e) => return Err(bad("create directory")(e)),
        };
        metadata::apply_open(&opened, entry)?;
        let path = dir.path.join(os);
        self.tree.described(&path);
        if !self.times.contains_key(&path) {
            self.tree.remember(&path)?;
        }
        self.times.insert(path, metadata::times(entry));
        Ok(())
    }

    fn hard_link(&mut self, dir: &Dir, name: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let target = entry.link.clone().unwrap_or_default();
        let components = tree::components(&target)?;
        let Some((target_name, parents)) = components.split_last() else {
            return Err(UnpackError::path(&entry.path, "a hard link to a directory"));
        };
        let from = self.tree.find(parents)?;
        let own = from.as_ref().map(|from| (from, OsStr::from_bytes(target_name)));
        let stat = own.map(|(from, name)| rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW));
        match (own, stat) {
            (Some((from, target_name)), Some(Ok(stat))) if !whiteout::is_whiteout(&stat) => {
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    return Err(UnpackError::path(&entry.path, "a hard link to a directory"));
                }
                let this = rustix::fs::statat(dir, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW);
                if this.is_ok_and(|this| this.st_ino == stat.st_ino && this.st_dev == stat.st_dev) {
                    // The same file already; replacing it would remove the target.
                    return Ok(());
                }
                self.replace(dir, name, entry, "create hard link", |dir, name| {
                    rustix::fs::linkat(from, target_name, dir, name, AtFlags::empty())
                })
            }
            // Perhaps a lower layer has it.
            (None, _) | (_, Some(Err(Errno::NOENT))) => {
                if self.dangling.len() >= MAX_DANGLING {
                    return Err(UnpackError::LinkTarget { path: shown(&entry.path), target: shown(&target) });
                }
                // As any other entry, it takes the place of what had its name.
                match tree::remove(dir, name) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(e) => return Err(UnpackError::io(&entry.path, "replace", e)),
                }
                // Perhaps the target is such a link itself, and then the file is the one that it waits for.
                let before = own.and_then(|(from, name)| self.late.get(&from.path.join(name)));
                let target: Arc<Path> = match before {
                    Some(before) => self.dangling[*before].1.clone(),
                    None => components.iter().map(|c| OsStr::from_bytes(c)).collect::<PathBuf>().into(),
                };
                let link = dir.path.join(OsStr::from_bytes(name));
                self.tree.remember(&link)?;
                self.tree.remember(&target)?;
                self.late.insert(link.clone(), self.dangling.len());
                self.dangling.push((link, target));
                Ok(())
            }
            (_, Some(Err(e))) => Err(UnpackError::io(&entry.path, "look at link target", e)),
            _ => Err(UnpackError::LinkTarget { path: shown(&entry.path), target: shown(&target) }),
        }
    }

    /// Device nodes and pipes, as given: a container decides by its device rules what it may open.
    fn node(&self, dir: &Dir, name: &[u8], entry: &Entry, kind: FileType) -> Result<(), UnpackError> {
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        let device = if kind == FileType::Fifo { 0 } else { device };
        self.replace(dir, name, entry, "create device", |dir, name| {
            rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(0o600), device)
        })?;
        metadata::apply_named(dir, name, entry, true)
    }

    /// Makes something under a name; what had it before is removed.
    fn replace(
        &self,
        dir: &Dir,
        name: &[u8],
        entry: &Entry,
        operation: &'static str,
        make: impl Fn(&Dir, &OsStr) -> Result<(), Errno>,
    ) -> Result<(), UnpackError> {
        let os = OsStr::from_bytes(name);
        let result = match make(dir, os) {
            Err(Errno::EXIST) => tree::remove(dir, name).and_then(|()| make(dir, os)),
            other => other,
        };
        result.map_err(|e| UnpackError::io(&entry.path, operation, e))
    }

    pub(super) fn finish(mut self) -> Result<Unpacked, UnpackError> {
        // Children first, so that nothing touches a directory after its time was set.
        for (path, times) in self.times.iter().rev() {
            let bytes = path.as_os_str().as_bytes();
            let components = tree::components(bytes)?;
            // Replaced by a later entry.
            let Ok(Some(dir)) = self.tree.find(&components) else { continue };
            rustix::fs::futimens(&dir, times).map_err(|e| UnpackError::io(bytes, "set time", e))?;
        }
        let implicit = self.tree.into_implicit();
        let inodes = self.inodes + implicit.len() as u64;
        Ok(Unpacked { bytes: self.bytes, inodes, implicit, dangling: self.dangling })
    }
}
