//! The directory that is unpacked into: names to directory descriptors, without ever leaving it.
//!
//! Nothing else writes there meanwhile, but the tar itself may have made symbolic links. A path without
//! links is opened in one call that refuses links; one with links is walked step by step, each step by
//! descriptor and without following, with links expanded by us and confined to the root.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::UnpackLimits;
use super::error::UnpackError;
use super::whiteout;

/// Directories deeper than this are refused; removing them again would need as many descriptors.
const MAX_DEPTH: usize = 400;
/// The kernel's own bound of symbolic links in one path.
const MAX_LINKS: usize = 40;
/// What a name costs besides its bytes.
const NAME: u64 = 64;
/// Longest path.
const MAX_PATH: usize = 4096;

/// A directory in the tree, by descriptor.
#[derive(Clone)]
pub(super) struct Dir {
    fd: Rc<OwnedFd>,
    /// Where it is, relative to the root, links resolved.
    pub(super) path: PathBuf,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Dir {
    /// A directory in it, which must be one itself and not a link to one.
    pub(super) fn child(&self, name: &OsStr) -> Result<Self, Errno> {
        let fd = open_step(self, name.as_bytes())?;
        Ok(Self { fd: Rc::new(fd), path: self.path.join(name) })
    }
}

pub(super) struct Tree {
    root: Dir,
    /// The directory of the last entry: tars go directory by directory.
    last: Option<(Vec<u8>, Dir)>,
    /// Directories that were made without an entry of their own, parents first.
    implicit: Vec<PathBuf>,
    /// The ones of them that no later entry described.
    undescribed: HashSet<PathBuf>,
    max_implicit: u64,
    /// Bytes of the names that are remembered, and their bound.
    names: u64,
    max_names: u64,
}

impl Tree {
    pub(super) fn new(root: &Path, limits: &UnpackLimits) -> Result<Self, UnpackError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(root, flags, Mode::empty())
            .map_err(|e| UnpackError::io(b".", "open root", e))?;
        let root = Dir { fd: Rc::new(fd), path: PathBuf::new() };
        let UnpackLimits { max_entries: max_implicit, max_names, .. } = *limits;
        let (implicit, undescribed) = (Vec::new(), HashSet::new());
        Ok(Self { root, last: None, implicit, undescribed, max_implicit, names: 0, max_names })
    }

    pub(super) fn root(&self) -> &Dir {
        &self.root
    }

    /// Counts a name that somebody remembers until the end of the layer.
    pub(super) fn remember(&mut self, name: &Path) -> Result<(), UnpackError> {
        self.names += name.as_os_str().len() as u64 + NAME;
        let limit = self.max_names;
        if self.names > limit { Err(UnpackError::TooManyNames { limit }) } else { Ok(()) }
    }

    /// A directory got an entry of its own after all.
    pub(super) fn described(&mut self, path: &Path) {
        self.undescribed.remove(path);
    }

    /// Directories without an entry of their own, parents first.
    pub(super) fn into_implicit(self) -> Vec<PathBuf> {
        let Self { mut implicit, undescribed, .. } = self;
        implicit.retain(|path| undescribed.contains(path));
        implicit
    }

    /// Something else than a directory gets this name: what had it before must not be remembered.
    pub(super) fn forget(&mut self, components: &[&[u8]]) {
        let key = components.join(&b'/');
        let below = |last: &[u8]| {
            last.strip_prefix(&key[..]).is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
        };
        if self.last.as_ref().is_some_and(|(last, _)| below(last)) {
            self.last = None;
        }
    }

    /// The directory with these components, made when missing.
    pub(super) fn directory(&mut self, components: &[&[u8]]) -> Result<Dir, UnpackError> {
        let key = components.join(&b'/');
        if let Some((last, dir)) = &self.last
            && *last == key
        {
            return Ok(dir.clone());
        }
        let dir = match self.open_plain(&key, components) {
            Some(dir) => dir,
            None => {
                self.walk(components, true)?.ok_or_else(|| UnpackError::path(&key, "no such directory"))?
            }
        };
        self.last = Some((key, dir.clone()));
        Ok(dir)
    }

    /// The directory with these components, when it exists.
    pub(super) fn find(&mut self, components: &[&[u8]]) -> Result<Option<Dir>, UnpackError> {
        let key = components.join(&b'/');
        match self.open_plain(&key, components) {
            Some(dir) => Ok(Some(dir)),
            None => self.walk(components, false),
        }
    }

    /// The directory at this very place, a path as the tree gave it: `None` when any part of it is a link, something
    /// else, or missing.
    pub(super) fn exact(&self, path: &Path) -> Result<Option<Dir>, Errno> {
        let mut here = self.root.clone();
        for name in path {
            here = match here.child(name) {
                Ok(dir) => dir,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(e) => return Err(e),
            };
        }
        Ok(Some(here))
    }

    /// One call, for a path without links.
    fn open_plain(&self, key: &[u8], components: &[&[u8]]) -> Option<Dir> {
        if components.is_empty() {
            return Some(self.root.clone());
        }
        if components.len() > MAX_DEPTH {
            return None;
        }
        let path = OsStr::from_bytes(key);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let fd = rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve).ok()?;
        Some(Dir { fd: Rc::new(fd), path: PathBuf::from(path) })
    }

    /// Step by step. Missing directories are made (and noted) when `make` is set.
    fn walk(&mut self, components: &[&[u8]], make: bool) -> Result<Option<Dir>, UnpackError> {
        let whole = components.join(&b'/');
        let mut todo: Vec<Vec<u8>> = components.iter().rev().map(|c| c.to_vec()).collect();
        let mut stack = vec![self.root.clone()];
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == b".." {
                if stack.len() > 1 {
                    stack.pop();
                }
                continue;
            }
            if stack.len() > MAX_DEPTH {
                return Err(UnpackError::path(&whole, "directories are nested too deeply"));
            }
            let here = stack.last().unwrap_or(&self.root).clone();
            match here.child(OsStr::from_bytes(&name)) {
                Ok(dir) => stack.push(dir),
                Err(Errno::NOENT) if make => stack.push(self.make_implicit(&here, &name)?),
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    let stat = rustix::fs::statat(&here, OsStr::from_bytes(&name), AtFlags::SYMLINK_NOFOLLOW)
                        .map_err(|e| UnpackError::io(&whole, "look at directory", e))?;
                    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                        links += 1;
                        if links > MAX_LINKS {
                            return Err(UnpackError::path(&whole, "too many symbolic links"));
                        }
                        let target = rustix::fs::readlinkat(&here, OsStr::from_bytes(&name), Vec::new())
                            .map_err(|e| UnpackError::io(&whole, "read link", e))?;
                        let target = target.to_bytes();
                        if target.first() == Some(&b'/') {
                            stack.truncate(1);
                        }
                        let parts = target.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".");
                        todo.extend(parts.rev().map(<[u8]>::to_vec));
                    } else if whiteout::is_whiteout(&stat) && make {
                        // Hidden in the layers below, and now a directory of this layer.
                        rustix::fs::unlinkat(&here, OsStr::from_bytes(&name), AtFlags::empty())
                            .map_err(|e| UnpackError::io(&whole, "replace whiteout", e))?;
                        let dir = self.make_implicit(&here, &name)?;
                        whiteout::set_opaque(&dir).map_err(|e| UnpackError::io(&whole, "mark opaque", e))?;
                        stack.push(dir);
                    } else if make {
                        return Err(UnpackError::path(&whole, "a parent is not a directory"));
                    } else {
                        return Ok(None);
                    }
                }
                Err(e) => return Err(UnpackError::io(&whole, "open directory", e)),
            }
        }
        Ok(stack.pop())
    }

    fn make_implicit(&mut self, here: &Dir, name: &[u8]) -> Result<Dir, UnpackError> {
        let path = here.path.join(OsStr::from_bytes(name));
        if self.implicit.len() as u64 >= self.max_implicit {
            return Err(UnpackError::TooManyEntries { limit: self.max_implicit });
        }
        let bytes = path.as_os_str().as_bytes();
        rustix::fs::mkdirat(here, OsStr::from_bytes(name), Mode::from_raw_mode(0o755))
            .map_err(|e| UnpackError::io(bytes, "create directory", e))?;
        let dir =
            here.child(OsStr::from_bytes(name)).map_err(|e| UnpackError::io(bytes, "open directory", e))?;
        self.remember(&path)?;
        self.implicit.push(path.clone());
        self.undescribed.insert(path);
        Ok(dir)
    }
}

/// One component, which must be a directory itself and not a link to one.
pub(super) fn open_step(here: &impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(here, OsStr::from_bytes(name), flags, Mode::empty())
}

/// Removes whatever has this name, directories with their content.
pub(super) fn remove(here: &impl AsFd, name: &[u8]) -> Result<(), Errno> {
    let os = OsStr::from_bytes(name);
    match rustix::fs::unlinkat(here, os, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return other,
    }
    let dir = open_step(here, name)?;
    for entry in names(&dir)? {
        remove(&dir, &entry)?;
    }
    rustix::fs::unlinkat(here, os, AtFlags::REMOVEDIR)
}

/// What is in a directory.
pub(super) fn names(dir: &impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    let entries = rustix::fs::Dir::read_from(dir)?.filter_map(Result::ok);
    let names = entries.map(|entry| entry.file_name().to_bytes().to_vec());
    Ok(names.filter(|name| name != b"." && name != b"..").collect())
}

/// The components of a name from the tar, confined: a leading `/` means the root of the layer, and `..` does
/// not lead above it.
pub(super) fn components(path: &[u8]) -> Result<Vec<&[u8]>, UnpackError> {
    if path.len() > MAX_PATH {
        return Err(UnpackError::path(path, "the name is too long"));
    }
    if path.contains(&0) {
        return Err(UnpackError::path(path, "the name contains a zero byte"));
    }
    let mut out: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(out.pop()),
            part if part.len() > 255 => {
                return Err(UnpackError::path(path, "a part of the name is too long"));
            }
            part => out.push(part),
        }
    }
    if out.len() > MAX_DEPTH {
        return Err(UnpackError::path(path, "directories are nested too deeply"));
    }
    Ok(out)
}
