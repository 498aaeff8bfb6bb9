//! Regular files.

use std::ffi::OsStr;
use std::io::BufRead;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::error::UnpackError;
use super::metadata;
use super::tar::{Entry, TarReader};
use super::tree::{self, Dir};
use crate::room::Room;

/// Makes the file `name` in `dir` and fills it from the tar.
pub(super) fn write<R: BufRead>(
    dir: &Dir,
    name: &[u8],
    entry: &Entry,
    tar: &mut TarReader<R>,
    room: &mut Room,
) -> Result<OwnedFd, UnpackError> {
    let mode = metadata::first_mode(entry);
    let fd = create(dir, name, mode).map_err(|e| UnpackError::io(&entry.path, "create file", e))?;
    match &entry.sparse {
        None => copy(&fd, 0, entry.size, entry, tar, room)?,
        Some(pieces) => {
            rustix::fs::ftruncate(&fd, entry.length)
                .map_err(|e| UnpackError::io(&entry.path, "set length", e))?;
            for (offset, length) in pieces {
                copy(&fd, *offset, *length, entry, tar, room)?;
            }
        }
    }
    Ok(fd)
}

/// What had the name before is removed: the last entry of a name counts.
fn create(dir: &Dir, name: &[u8], mode: Mode) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(dir, OsStr::from_bytes(name), flags, mode);
    match open() {
        Err(Errno::EXIST) => {
            tree::remove(dir, name)?;
            open()
        }
        other => other,
    }
}

/// Writes what the tar has, from where it lies: a copy of every byte less.
fn copy<R: BufRead>(
    fd: &OwnedFd,
    mut offset: u64,
    length: u64,
    entry: &Entry,
    tar: &mut TarReader<R>,
    room: &mut Room,
) -> Result<(), UnpackError> {
    let mut left = length;
    while left > 0 {
        let content = tar.content().map_err(UnpackError::Read)?;
        let content = &content[..usize::try_from(left).unwrap_or(usize::MAX).min(content.len())];
        if content.is_empty() {
            return Err(tar.cut());
        }
        room.take(fd, content.len() as u64).map_err(|e| UnpackError::io(&entry.path, "write", e))?;
        match rustix::io::pwrite(fd, content, offset) {
            Ok(0) => return Err(UnpackError::io(&entry.path, "write", Errno::NOSPC)),
            Ok(written) => {
                tar.consume(written);
                offset += written as u64;
                left -= written as u64;
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(UnpackError::io(&entry.path, "write", e)),
        }
    }
    Ok(())
}
