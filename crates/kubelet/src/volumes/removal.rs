//! Removes a directory that containers have written: however deep it is, and whatever is mounted in it. A file
//! system that is (still) mounted inside is never entered: behind it may be the host's own files.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Removes `dir` and everything in it; nothing there is fine.
///
/// # Errors
/// What could not be removed; a mount point is such a thing.
pub(super) fn remove(dir: &Path) -> std::io::Result<()> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match rustix::fs::open(parent, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let name = CString::new(std::os::unix::ffi::OsStrExt::as_bytes(name))?;
    match rustix::fs::unlinkat(&parent, &name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error.into()),
    }
    empty(&open(&parent, &name)?)?;
    rustix::fs::unlinkat(&parent, &name, AtFlags::REMOVEDIR).map_err(Into::into)
}

/// Empties a directory. What is not empty inside is moved up and comes later, so that depth costs nothing.
fn empty(top: &OwnedFd) -> std::io::Result<()> {
    let mut moved = 0_u64;
    loop {
        let mut directories = Vec::new();
        for name in names(top)? {
            if !removed(top, &name)? {
                directories.push(name);
            }
        }
        if directories.is_empty() {
            return Ok(());
        }
        for directory in directories {
            let inside = open(top, &directory)?;
            for name in names(&inside)? {
                while !removed(&inside, &name)? {
                    let aside = CString::new(format!(".removed-{moved}"))?;
                    moved += 1;
                    let flags = rustix::fs::RenameFlags::NOREPLACE;
                    match rustix::fs::renameat_with(&inside, &name, top, &aside, flags) {
                        // The container made one of that name.
                        Err(Errno::EXIST) => {}
                        other => {
                            other?;
                            break;
                        }
                    }
                }
            }
            drop(inside);
            rustix::fs::unlinkat(top, &directory, AtFlags::REMOVEDIR)?;
        }
    }
}

/// Removes a file or an empty directory; false for a directory that has something in it.
fn removed(dir: &OwnedFd, name: &CStr) -> std::io::Result<bool> {
    let result = match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR),
        other => other,
    };
    match result {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Opens a directory, but neither a link nor a mount point.
fn open(parent: &OwnedFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve)
}

fn names(dir: &OwnedFd) -> std::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir.as_fd())? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn deep_trees_and_strange_names_go() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        // Deeper than a path may be long.
        let mut at = rustix::fs::open(&tree, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        for _ in 0..3_000 {
            rustix::fs::mkdirat(&at, "deeper", Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, "deeper", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        }
        std::fs::create_dir_all(tree.join(".removed-0/x")).unwrap();
        std::fs::write(tree.join(std::ffi::OsStr::from_bytes(b"\xff\xfe\n")), "x").unwrap();
        std::os::unix::fs::symlink("/etc", tree.join("link")).unwrap();
        remove(&tree).unwrap();
        assert!(!tree.exists());
        remove(&tree).unwrap();
        remove(&dir.path().join("none/at/all")).unwrap();
    }

    #[test]
    fn what_is_mounted_is_not_entered() {
        let dir = tempfile::tempdir().unwrap();
        let (host, tree) = (dir.path().join("host"), dir.path().join("tree"));
        std::fs::create_dir_all(tree.join("a/mounted")).unwrap();
        std::fs::create_dir(&host).unwrap();
        std::fs::write(host.join("precious"), "x").unwrap();
        super::super::kernel_mounts::bind(&host, &tree.join("a/mounted")).unwrap();
        assert!(remove(&tree).is_err());
        assert!(remove(&tree.join("a/mounted")).is_err());
        assert!(host.join("precious").exists());
        assert!(super::super::kernel_mounts::unmount_below(&tree).unwrap().is_empty());
        remove(&tree).unwrap();
        assert!(!tree.exists() && host.join("precious").exists());
    }
}
