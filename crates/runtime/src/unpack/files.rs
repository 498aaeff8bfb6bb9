//! Regular files.

use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::error::UnpackError;
use super::tar::{Entry, TarReader};
use super::tree::{self, Dir};

/// Makes the file `name` in `dir` and fills it from the tar.
pub(super) fn write<R: Read>(
    dir: &Dir,
    name: &[u8],
    entry: &Entry,
    tar: &mut TarReader<R>,
    buffer: &mut [u8],
) -> Result<OwnedFd, UnpackError> {
    let fd = create(dir, name).map_err(|e| UnpackError::io(&entry.path, "create file", e))?;
    match &entry.sparse {
        None => copy(&fd, 0, entry.size, entry, tar, buffer)?,
        Some(pieces) => {
            rustix::fs::ftruncate(&fd, entry.length)
                .map_err(|e| UnpackError::io(&entry.path, "set length", e))?;
            for (offset, length) in pieces {
                copy(&fd, *offset, *length, entry, tar, buffer)?;
            }
        }
    }
    Ok(fd)
}

/// What had the name before is removed: the last entry of a name counts.
fn create(dir: &Dir, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(dir, OsStr::from_bytes(name), flags, Mode::from_raw_mode(0o600));
    match open() {
        Err(Errno::EXIST) => {
            tree::remove(dir, name)?;
            open()
        }
        other => other,
    }
}

fn copy<R: Read>(
    fd: &OwnedFd,
    mut offset: u64,
    length: u64,
    entry: &Entry,
    tar: &mut TarReader<R>,
    buffer: &mut [u8],
) -> Result<(), UnpackError> {
    let mut left = length;
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let n = tar.read(&mut buffer[..want]).map_err(UnpackError::Read)?;
        if n == 0 {
            return Err(tar.cut());
        }
        let mut written = 0;
        while written < n {
            match rustix::io::pwrite(fd, &buffer[written..n], offset) {
                Ok(0) => return Err(UnpackError::io(&entry.path, "write", Errno::NOSPC)),
                Ok(w) => {
                    written += w;
                    offset += w as u64;
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(UnpackError::io(&entry.path, "write", e)),
            }
        }
        left -= n as u64;
    }
    Ok(())
}
