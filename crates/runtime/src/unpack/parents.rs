//! What a layer needs its parents for, settled once they are unpacked too.
//!
//! - A directory that the tar used without describing it gets owner, mode, times and attributes of the one
//!   below; in an overlay, the upper one's count.
//! - If the one below is a symbolic link to a directory (`/bin` to `usr/bin`), the files were meant for
//!   where it leads.
//! - A hard link to a file of a lower layer gets that file's copy, as the overlay itself would make it; further links
//!   to the same file are links to the copy, so a layer holds each file below at most once.
//!
//! Between an entry that needs this and now, later entries may have put anything in its way: a link to the host's
//! `/etc` where a directory was. Places in the layer are therefore opened component by component, no link is ever
//! followed, and what is done there is done by descriptor.

mod copy;
mod view;

use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use self::copy::{copy_metadata, copy_up};
use self::view::{Found, View};
use super::tree::{self, Dir, Tree};
use super::whiteout::{self, is_whiteout};
use super::{UnpackError, UnpackLimits, Unpacked, error::shown};
use crate::room::Room;

/// Settles a layer in `own` over the directories in `lower` (topmost first); gives the bytes that it takes now.
pub(crate) fn complete(
    own: &Path,
    lower: &[PathBuf],
    unpacked: Unpacked,
    limits: &UnpackLimits,
) -> Result<u64, UnpackError> {
    if lower.is_empty() {
        return match unpacked.dangling.first() {
            None => Ok(unpacked.bytes),
            Some((link, target)) => Err(no_target(link, target)),
        };
    }
    let mut layer = Layer {
        own: Tree::new(own, limits)?,
        below: View { lower },
        implicit: unpacked.implicit.into(),
        dangling: unpacked.dangling,
        copies: HashMap::new(),
        bytes: unpacked.bytes,
        max_bytes: limits.max_bytes,
        room: Room::default(),
    };
    while let Some(path) = layer.implicit.pop_front() {
        layer.settle_directory(&path).map_err(|e| fail(&path, "complete directory", e))?;
    }
    // The last entry of a name counts: it goes first, and those before it find the name taken.
    for (link, target) in std::mem::take(&mut layer.dangling).iter().rev() {
        layer.late_link(link, target)?;
    }
    Ok(layer.bytes)
}

fn no_target(link: &Path, target: &Path) -> UnpackError {
    UnpackError::LinkTarget {
        path: shown(link.as_os_str().as_bytes()),
        target: shown(target.as_os_str().as_bytes()),
    }
}

fn fail(path: &Path, operation: &'static str, error: io::Error) -> UnpackError {
    UnpackError::io(path.as_os_str().as_bytes(), operation, error)
}

/// A layer and what is still to be settled in it.
struct Layer<'a> {
    own: Tree,
    below: View<'a>,
    implicit: VecDeque<PathBuf>,
    dangling: Vec<(PathBuf, Arc<Path>)>,
    /// Files of lower layers that have a copy here, and where.
    copies: HashMap<Arc<Path>, PathBuf>,
    /// What the layer takes, copies included.
    bytes: u64,
    max_bytes: u64,
    room: Room,
}

impl Layer<'_> {
    fn settle_directory(&mut self, path: &Path) -> io::Result<()> {
        // Replaced by a later entry, or hidden below by its own layer.
        let Some(mine) = self.own.exact(path)? else { return Ok(()) };
        if whiteout::is_opaque(&mine) {
            return Ok(());
        }
        let below = match self.below.look(path)? {
            Found::Missing => return Ok(()),
            Found::Directory(below) => return copy_metadata(&below, &mine),
            Found::Other(below) => below,
        };
        if !fs::symlink_metadata(&below)?.is_symlink() {
            return Ok(());
        }
        let Some(place) = self.below.follow(path)? else { return Ok(()) };
        move_content(&mine, &self.way(&place)?)?;
        let (parent, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
        if let Some(parent) = self.own.exact(parent)? {
            rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?;
        }
        let links = self.dangling.iter_mut().map(|(link, _)| link);
        for later in self.implicit.iter_mut().chain(links) {
            if let Ok(rest) = later.strip_prefix(path) {
                *later = place.join(rest);
            }
        }
        Ok(())
    }

    /// Makes the directories to `place` as far as they are missing, with the metadata of what is below, and opens the
    /// last one. Something of the layer's own in the way (a link above all) is an error.
    fn way(&self, place: &Path) -> io::Result<Dir> {
        let mut here = self.own.root().clone();
        for name in place {
            let made = match rustix::fs::mkdirat(&here, name, Mode::from_raw_mode(0o755)) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(e) => return Err(e.into()),
            };
            here = here.child(name)?;
            if made && let Found::Directory(below) = self.below.look(&here.path)? {
                copy_metadata(&below, &here)?;
            }
        }
        Ok(here)
    }

    /// A hard link to a file below becomes its copy, or a link to the copy that is there already; unless a later entry
    /// has its name or an ancestor's.
    fn late_link(&mut self, link: &Path, target: &Arc<Path>) -> Result<(), UnpackError> {
        let failed = |e: io::Error| fail(link, "copy link target", e);
        let found = self.below.look(target).map_err(|e| fail(link, "find link target", e))?;
        let Found::Other(real) = found else { return Err(no_target(link, target)) };
        let (parent, name) = (link.parent().unwrap_or(Path::new("")), link.file_name().unwrap_or_default());
        let Some(dir) = self.own.exact(parent).map_err(|e| failed(e.into()))? else { return Ok(()) };
        match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            // It hides what is below, never what its own layer has.
            Ok(stat) if is_whiteout(&stat) => {
                rustix::fs::unlinkat(&dir, name, AtFlags::empty()).map_err(|e| failed(e.into()))?;
            }
            Ok(_) => return Ok(()),
            Err(e) => return Err(failed(e.into())),
        }
        if self.link_copy(target, &dir, name).map_err(|e| failed(e.into()))? {
            return Ok(());
        }
        let bytes = fs::symlink_metadata(&real).map_err(failed)?.blocks().saturating_mul(512);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.max_bytes {
            return Err(UnpackError::TooLarge { limit: self.max_bytes });
        }
        self.room.take(&dir, bytes).map_err(|e| failed(e.into()))?;
        copy_up(&real, &dir, name).map_err(failed)?;
        self.copies.insert(target.clone(), link.to_owned());
        Ok(())
    }

    /// Links to the copy of a file below. False when there is none, or it has as many links as it may have.
    fn link_copy(&self, target: &Arc<Path>, dir: &Dir, name: &OsStr) -> Result<bool, Errno> {
        let Some(copy) = self.copies.get(target) else { return Ok(false) };
        let (parent, copied) = (copy.parent().unwrap_or(Path::new("")), copy.file_name().unwrap_or_default());
        let Some(parent) = self.own.exact(parent)? else { return Ok(false) };
        // The last part of the name is not followed either.
        match rustix::fs::linkat(&parent, copied, dir, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::MLINK) => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// Moves everything in `from` into `to`, merging directories.
fn move_content(from: &Dir, to: &Dir) -> io::Result<()> {
    for name in tree::names(from)? {
        let name = OsString::from_vec(name);
        match (kind(from, &name)?, kind(to, &name)?) {
            (Some(FileType::Directory), Some(FileType::Directory)) => {
                move_content(&from.child(&name)?, &to.child(&name)?)?;
                rustix::fs::unlinkat(from, &name, AtFlags::REMOVEDIR)?;
            }
            // Described under its real name as well: that one stays.
            (_, Some(_)) => tree::remove(from, name.as_bytes())?,
            (_, None) => rustix::fs::renameat(from, &name, to, &name)?,
        }
    }
    Ok(())
}

/// What has this name, itself and not where it leads.
fn kind(dir: &Dir, name: &OsStr) -> io::Result<Option<FileType>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
