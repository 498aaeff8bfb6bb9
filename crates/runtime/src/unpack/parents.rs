//! What a layer needs its parents for, settled once they are unpacked too.
//!
//! - A directory that the tar used without describing it gets owner, mode, times and attributes of the one
//!   below; in an overlay, the upper one's count.
//! - If the one below is a symbolic link to a directory (`/bin` to `usr/bin`), the files were meant for
//!   where it leads.
//! - A hard link to a file of a lower layer gets that file's copy, as the overlay itself would make it.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

use super::metadata::is_overlay;
use super::whiteout::OPAQUE_XATTR;
use super::{UnpackError, Unpacked, error::shown};

const MAX_LINKS: usize = 40;

/// Settles a layer in `own` over the directories in `lower` (topmost first).
pub(crate) fn complete(own: &Path, lower: &[PathBuf], unpacked: Unpacked) -> Result<(), UnpackError> {
    if lower.is_empty() {
        return match unpacked.dangling.first() {
            None => Ok(()),
            Some((link, target)) => Err(no_target(link, target)),
        };
    }
    let view = View { lower };
    let mut queue: VecDeque<PathBuf> = unpacked.implicit.into();
    while let Some(path) = queue.pop_front() {
        settle_directory(own, &view, &path, &mut queue).map_err(|e| fail(&path, "complete directory", e))?;
    }
    for (link, target) in &unpacked.dangling {
        let Found::Other(real) = view.look(target).map_err(|e| fail(link, "find link target", e))? else {
            return Err(no_target(link, target));
        };
        copy_up(&real, &own.join(link)).map_err(|e| fail(link, "copy link target", e))?;
    }
    Ok(())
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

fn settle_directory(
    own: &Path,
    view: &View<'_>,
    path: &Path,
    queue: &mut VecDeque<PathBuf>,
) -> io::Result<()> {
    let mine = own.join(path);
    // Replaced by a later entry, or hidden below by its own layer.
    if !fs::symlink_metadata(&mine).is_ok_and(|m| m.is_dir()) || has_opaque(&mine) {
        return Ok(());
    }
    match view.look(path)? {
        Found::Missing => Ok(()),
        Found::Directory(below) => copy_metadata(&below, &mine),
        Found::Other(below) => {
            if !fs::symlink_metadata(&below)?.is_symlink() {
                return Ok(());
            }
            let Some(place) = view.follow(path)? else { return Ok(()) };
            // The way there, with the metadata of what is below.
            let mut way = PathBuf::new();
            for component in place.components() {
                way.push(component);
                match fs::create_dir(own.join(&way)) {
                    Ok(()) => {
                        if let Found::Directory(below) = view.look(&way)? {
                            copy_metadata(&below, &own.join(&way))?;
                        }
                    }
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(e) => return Err(e),
                }
            }
            move_content(&mine, &own.join(&place))?;
            fs::remove_dir(&mine)?;
            for later in queue.iter_mut() {
                if let Ok(rest) = later.strip_prefix(path) {
                    *later = place.join(rest);
                }
            }
            Ok(())
        }
    }
}

/// Moves everything in `from` into `to`, merging directories.
fn move_content(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match fs::symlink_metadata(&target) {
            Ok(there) if there.is_dir() && entry.file_type()?.is_dir() => {
                move_content(&entry.path(), &target)?;
                fs::remove_dir(entry.path())?;
            }
            // Described under its real name as well: that one stays.
            Ok(_) if entry.file_type()?.is_dir() => fs::remove_dir_all(entry.path())?,
            Ok(_) => fs::remove_file(entry.path())?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => fs::rename(entry.path(), &target)?,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

enum Found {
    Missing,
    /// The real path of the topmost directory.
    Directory(PathBuf),
    /// The real path of something else.
    Other(PathBuf),
}

/// What the layers below look like together.
struct View<'a> {
    lower: &'a [PathBuf],
}

impl View<'_> {
    /// Looks a path up without following links.
    fn look(&self, path: &Path) -> io::Result<Found> {
        let mut here: Vec<PathBuf> = self.lower.to_vec();
        let names: Vec<&OsStr> = path.components().map(Component::as_os_str).collect();
        for (i, name) in names.iter().enumerate() {
            let mut next = Vec::new();
            for dir in &here {
                let real = dir.join(name);
                let meta = match fs::symlink_metadata(&real) {
                    Ok(meta) => meta,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(e),
                };
                if meta.is_dir() {
                    let opaque = has_opaque(&real);
                    next.push(real);
                    if opaque {
                        break;
                    }
                    continue;
                }
                let whiteout = meta.file_type().is_char_device() && meta.rdev() == 0;
                if next.is_empty() && !whiteout {
                    // Something else in the middle of a path hides everything below it.
                    return Ok(if i + 1 == names.len() { Found::Other(real) } else { Found::Missing });
                }
                break;
            }
            if next.is_empty() {
                return Ok(Found::Missing);
            }
            here = next;
        }
        Ok(here.into_iter().next().map_or(Found::Missing, Found::Directory))
    }

    /// Where a path leads when links are followed; `None` when nowhere, or not to a directory.
    fn follow(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        let mut todo: Vec<OsString> = path.components().rev().map(|c| c.as_os_str().to_owned()).collect();
        let mut at = PathBuf::new();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == ".." {
                at.pop();
                continue;
            }
            at.push(&name);
            match self.look(&at)? {
                Found::Directory(_) => {}
                Found::Missing => return Ok(None),
                Found::Other(real) => {
                    if !fs::symlink_metadata(&real)?.is_symlink() || links == MAX_LINKS {
                        return Ok(None);
                    }
                    links += 1;
                    at.pop();
                    let target = fs::read_link(&real)?;
                    if target.is_absolute() {
                        at.clear();
                    }
                    let parts = target
                        .components()
                        .filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir));
                    let parts: Vec<OsString> = parts.map(|c| c.as_os_str().to_owned()).collect();
                    todo.extend(parts.into_iter().rev());
                }
            }
        }
        Ok(Some(at))
    }
}

fn has_opaque(dir: &Path) -> bool {
    let mut value = [0u8; 8];
    matches!(rustix::fs::lgetxattr(dir, OPAQUE_XATTR, &mut value), Ok(1) if value[0] == b'y')
}

/// Owner, mode, attributes, times.
fn copy_metadata(from: &Path, to: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(from)?;
    rustix::fs::chownat(
        CWD,
        to,
        Some(Uid::from_raw(meta.uid())),
        Some(Gid::from_raw(meta.gid())),
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    if !meta.is_symlink() {
        rustix::fs::chmodat(CWD, to, Mode::from_raw_mode(meta.mode() & 0o7777), AtFlags::empty())?;
    }
    copy_xattrs(from, to)?;
    let times = Timestamps {
        last_access: Timespec { tv_sec: meta.atime(), tv_nsec: meta.atime_nsec() },
        last_modification: Timespec { tv_sec: meta.mtime(), tv_nsec: meta.mtime_nsec() },
    };
    rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

fn copy_xattrs(from: &Path, to: &Path) -> io::Result<()> {
    let mut names = vec![0u8; 64 << 10];
    let Ok(length) = rustix::fs::llistxattr(from, &mut names[..]) else { return Ok(()) };
    let mut value = vec![0u8; 64 << 10];
    for name in names[..length].split(|b| *b == 0).filter(|n| !n.is_empty() && !is_overlay(n)) {
        let name = OsStr::from_bytes(name);
        if let Ok(n) = rustix::fs::lgetxattr(from, name, &mut value[..]) {
            rustix::fs::lsetxattr(to, name, &value[..n], XattrFlags::empty())?;
        }
    }
    Ok(())
}

fn copy_up(from: &Path, to: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(from)?;
    match fs::remove_file(to) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    if meta.is_file() {
        fs::copy(from, to)?;
    } else if meta.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(from)?, to)?;
    } else {
        let kind = rustix::fs::FileType::from_raw_mode(meta.mode());
        rustix::fs::mknodat(CWD, to, kind, Mode::from_raw_mode(0o600), meta.rdev())?;
    }
    copy_metadata(from, to)
}
