//! Namespaces pinned by bind mounts under `<dir>/ns`.
//!
//! `<dir>/ns` is a mount of its own and private: podman and `ip netns` make `/run/netns` shared, and pins
//! in a shared mount spread into every mount namespace made later and keep the namespaces alive there.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The directory of the pins.
pub(crate) fn directory(dir: &Path) -> PathBuf {
    dir.join("ns")
}

/// Makes the directory and its private mount.
pub(crate) fn prepare(dir: &Path) -> io::Result<PathBuf> {
    let ns = directory(dir);
    fs::create_dir_all(&ns)?;
    bind(&ns, &ns)?;
    mount(None, &ns, libc::MS_PRIVATE)?;
    Ok(ns)
}

/// Pins the namespace behind `source` (`/proc/PID/ns/…`) at `target`.
pub(crate) fn pin(source: &Path, target: &Path) -> io::Result<()> {
    fs::OpenOptions::new().write(true).create(true).truncate(false).open(target)?;
    bind(source, target)
}

/// Removes one pin; nothing there is fine.
pub(crate) fn unpin(target: &Path) -> io::Result<()> {
    unmount(target)?;
    absent(fs::remove_file(target))
}

/// Removes all pins in the directory and its mount. Carries on after an error and returns the first.
pub(crate) fn clear(dir: &Path) -> io::Result<()> {
    let ns = directory(dir);
    let Ok(entries) = fs::read_dir(&ns) else {
        return Ok(());
    };
    let unpinned = entries.flatten().map(|entry| unpin(&entry.path()));
    let unpinned = first_error(unpinned);
    unpinned.and(unmount(&ns)).and(absent(fs::remove_dir(&ns)))
}

/// Removes all that a shim keeps in its directory: pins, socket, log, scratch files, and the directory
/// itself when nothing else is in it. Carries on after an error and returns the first.
pub(crate) fn remove(dir: &Path) -> io::Result<()> {
    let cleared = clear(dir);
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().as_bytes().starts_with(b"shim."));
    let removed = first_error(ours.map(|entry| absent(fs::remove_file(entry.path()))));
    let gone = match fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        result => absent(result),
    };
    cleared.and(removed).and(gone)
}

/// Goes through all, whatever fails.
fn first_error(results: impl Iterator<Item = io::Result<()>>) -> io::Result<()> {
    results.fold(Ok(()), io::Result::and)
}

fn absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn bind(source: &Path, target: &Path) -> io::Result<()> {
    mount(Some(source), target, libc::MS_BIND)
}

fn mount(source: Option<&Path>, target: &Path, flags: libc::c_ulong) -> io::Result<()> {
    let source = source.map(path).transpose()?;
    let target = path(target)?;
    let from = source.as_ref().map_or(std::ptr::null(), |s| s.as_ptr());
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: all strings end in NUL and outlive the call; absent ones are null, which mount allows.
    if unsafe { libc::mount(from, target.as_ptr(), none, flags, none.cast()) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn unmount(target: &Path) -> io::Result<()> {
    let target = path(target)?;
    let flags = libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW;
    // SAFETY: the string ends in NUL and outlives the calls. Mounts may lie one upon another.
    while unsafe { libc::umount2(target.as_ptr(), flags) } == 0 {}
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // Not a mount, or not there.
        Some(libc::EINVAL | libc::ENOENT) => Ok(()),
        _ => Err(error),
    }
}

fn path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}
