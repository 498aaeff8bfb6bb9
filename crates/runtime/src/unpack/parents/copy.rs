//! Copies out of lower layers into a directory that is open: by descriptor or by a name in it, never by a path
//! that the layer could have bent.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::unpack::metadata::is_overlay;
use crate::unpack::tree::Dir;

/// Makes `name` in `dir`, where nothing has that name, a copy of `from` in a lower layer.
pub(super) fn copy_up(from: &Path, dir: &Dir, name: &OsStr) -> io::Result<()> {
    let meta = fs::symlink_metadata(from)?;
    if meta.is_file() {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut source = File::from(rustix::fs::open(from, flags, Mode::empty())?);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut copy = File::from(rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))?);
        copy_data(&mut source, &mut copy, meta.len())?;
        return copy_metadata(from, &copy);
    }
    if meta.is_symlink() {
        rustix::fs::symlinkat(fs::read_link(from)?, dir, name)?;
    } else {
        let kind = FileType::from_raw_mode(meta.mode());
        rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(0o600), meta.rdev())?;
    }
    copy_named(from, &meta, dir, name)
}

/// Copies what a file has and leaves its holes holes: a sparse file may claim any length.
fn copy_data(source: &mut File, copy: &mut File, length: u64) -> io::Result<()> {
    copy.set_len(length)?;
    let mut at = 0;
    while at < length {
        let start = match rustix::fs::seek(&*source, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            Err(e) => return Err(e.into()),
        };
        let end = rustix::fs::seek(&*source, SeekFrom::Hole(start))?.min(length);
        source.seek(io::SeekFrom::Start(start))?;
        copy.seek(io::SeekFrom::Start(start))?;
        io::copy(&mut source.take(end - start), copy)?;
        at = end;
    }
    Ok(())
}

/// Owner, mode, attributes, times of an open file or directory become those of `from`. The order matters: a change
/// of owner clears setuid bits and capabilities.
pub(super) fn copy_metadata(from: &Path, to: &impl AsFd) -> io::Result<()> {
    let meta = fs::symlink_metadata(from)?;
    rustix::fs::fchown(to, Some(Uid::from_raw(meta.uid())), Some(Gid::from_raw(meta.gid())))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(meta.mode() & 0o7777))?;
    for (name, value) in xattrs(from) {
        rustix::fs::fsetxattr(to, &name, &value, XattrFlags::empty())?;
    }
    rustix::fs::futimens(to, &times(&meta))?;
    Ok(())
}

/// The same for links, devices and pipes, which are not opened.
fn copy_named(from: &Path, meta: &Metadata, dir: &Dir, name: &OsStr) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(meta.uid()), Gid::from_raw(meta.gid()));
    rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if !meta.is_symlink() {
        // Just made by us under this name and not a link, so nothing can be followed.
        rustix::fs::chmodat(dir, name, Mode::from_raw_mode(meta.mode() & 0o7777), AtFlags::empty())?;
    }
    let path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd())).join(name);
    for (key, value) in xattrs(from) {
        rustix::fs::lsetxattr(&path, &key, &value, XattrFlags::empty())?;
    }
    rustix::fs::utimensat(dir, name, &times(meta), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

fn times(meta: &Metadata) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: meta.atime(), tv_nsec: meta.atime_nsec() },
        last_modification: Timespec { tv_sec: meta.mtime(), tv_nsec: meta.mtime_nsec() },
    }
}

/// The extended attributes of a file, without the overlay's own.
fn xattrs(of: &Path) -> Vec<(OsString, Vec<u8>)> {
    let mut names = vec![0u8; 64 << 10];
    let Ok(length) = rustix::fs::llistxattr(of, &mut names[..]) else { return Vec::new() };
    let mut value = vec![0u8; 64 << 10];
    let names = names[..length].split(|b| *b == 0).filter(|name| !name.is_empty() && !is_overlay(name));
    names
        .filter_map(|name| {
            let name = OsStr::from_bytes(name);
            let length = rustix::fs::lgetxattr(of, name, &mut value[..]).ok()?;
            Some((name.to_owned(), value[..length].to_vec()))
        })
        .collect()
}
