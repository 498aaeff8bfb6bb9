//! Owner, mode, times and extended attributes of what was unpacked.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::error::UnpackError;
use super::tar::Entry;

/// The most bytes of extended attributes that are applied to one file.
const MAX_XATTRS: usize = 64;

/// Owner and group as the kernel takes them.
pub(super) fn owner(entry: &Entry) -> Result<(Uid, Gid), UnpackError> {
    let id = |value: u64| {
        u32::try_from(value)
            .ok()
            .filter(|id| *id != u32::MAX)
            .ok_or_else(|| UnpackError::path(&entry.path, "the owner is not a valid id"))
    };
    Ok((Uid::from_raw(id(entry.uid)?), Gid::from_raw(id(entry.gid)?)))
}

pub(super) fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.mtime.0, tv_nsec: i64::from(entry.mtime.1) };
    Timestamps { last_access: time, last_modification: time }
}

/// What a file or directory is made with: with the usual mask and owner nothing is left to change, which
/// for small files is a good part of their cost.
pub(super) fn first_mode(entry: &Entry) -> Mode {
    Mode::from_raw_mode(entry.mode & 0o777)
}

/// For an open file or directory; only what is not so already is changed. The order matters: a change of
/// owner clears setuid bits and capabilities.
pub(super) fn apply_open(fd: &impl AsFd, entry: &Entry) -> Result<(), UnpackError> {
    let (uid, gid) = owner(entry)?;
    let now = rustix::fs::fstat(fd).map_err(|e| UnpackError::io(&entry.path, "look at", e))?;
    let same_owner = (now.st_uid, now.st_gid) == (uid.as_raw(), gid.as_raw());
    if !same_owner {
        rustix::fs::fchown(fd, Some(uid), Some(gid))
            .map_err(|e| UnpackError::io(&entry.path, "change owner", e))?;
    }
    let mode = mode(entry);
    let same_mode = Mode::from_raw_mode(now.st_mode) == mode && (same_owner || mode == first_mode(entry));
    if !same_mode {
        rustix::fs::fchmod(fd, mode).map_err(|e| UnpackError::io(&entry.path, "change mode", e))?;
    }
    for (name, value) in wanted(entry) {
        tolerate(rustix::fs::fsetxattr(fd, OsStr::from_bytes(name), value, XattrFlags::empty()), name)
            .map_err(|e| UnpackError::io(&entry.path, "set extended attribute", e))?;
    }
    Ok(())
}

/// For links, devices and pipes, which are not opened.
pub(super) fn apply_named(
    dir: &impl AsFd,
    name: &[u8],
    entry: &Entry,
    has_mode: bool,
) -> Result<(), UnpackError> {
    let os = OsStr::from_bytes(name);
    let (uid, gid) = owner(entry)?;
    rustix::fs::chownat(dir, os, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| UnpackError::io(&entry.path, "change owner", e))?;
    if has_mode {
        // Just made by us under this name and not a link, so nothing can be followed.
        rustix::fs::chmodat(dir, os, mode(entry), AtFlags::empty())
            .map_err(|e| UnpackError::io(&entry.path, "change mode", e))?;
    }
    if !entry.xattrs.is_empty() {
        let mut path = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        for (key, value) in wanted(entry) {
            let set = rustix::fs::lsetxattr(
                OsStr::from_bytes(&path),
                OsStr::from_bytes(key),
                value,
                XattrFlags::empty(),
            );
            tolerate(set, key).map_err(|e| UnpackError::io(&entry.path, "set extended attribute", e))?;
        }
    }
    rustix::fs::utimensat(dir, os, &times(entry), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| UnpackError::io(&entry.path, "set time", e))
}

pub(super) fn mode(entry: &Entry) -> Mode {
    Mode::from_raw_mode(entry.mode & 0o7777)
}

/// Attributes worth keeping. The overlay's own ones are never a layer's to set: they could make a file
/// stand for another one.
fn wanted(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    entry
        .xattrs
        .iter()
        .map(|(name, value)| (name.as_slice(), value.as_slice()))
        .filter(|(name, _)| !is_overlay(name) && !name.contains(&0))
        .take(MAX_XATTRS)
}

pub(super) fn is_overlay(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// File systems without attributes, and attributes of security modules that are not there, are no reason to
/// fail; a file capability that cannot be kept is.
fn tolerate(result: Result<(), Errno>, name: &[u8]) -> Result<(), Errno> {
    match result {
        Err(Errno::NOTSUP | Errno::PERM | Errno::INVAL) if name != b"security.capability" => Ok(()),
        Err(Errno::NOTSUP) => Ok(()),
        other => other,
    }
}
