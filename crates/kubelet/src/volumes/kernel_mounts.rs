//! The mounts that volumes need: tmpfs, huge pages, bind mounts for subPath, and their removal.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};

/// Mounts a tmpfs of `size` bytes unless something is mounted there already; its root directory has the mode and the
/// group from the beginning. Its content is kept out of swap where the kernel can (6.4).
pub(super) fn mount_tmpfs(
    dir: &Path,
    size: Option<i64>,
    mode: u32,
    group: Option<u32>,
) -> Result<(), String> {
    if is_mount_point(dir) {
        return Ok(());
    }
    let mut options = format!("mode={mode:o}");
    if let Some(size) = size {
        options.push_str(&format!(",size={size}"));
    }
    if let Some(group) = group {
        options.push_str(&format!(",gid={group}"));
    }
    let mount = |options: String| {
        let options = std::ffi::CString::new(options).map_err(|_| rustix::io::Errno::INVAL)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount("tmpfs", dir, "tmpfs", flags, Some(options.as_c_str()))
    };
    mount(format!("{options},noswap"))
        .or_else(|_| mount(options))
        .map_err(|error| format!("mount tmpfs on {}: {error}", dir.display()))
}

/// Mounts a file system of huge pages of `page_size` bytes, at most `size` bytes of them, unless something is mounted
/// there already.
pub(super) fn mount_huge_pages(dir: &Path, page_size: i64, size: i64) -> Result<(), String> {
    if is_mount_point(dir) {
        return Ok(());
    }
    let options = format!("pagesize={page_size},size={size}");
    let mount = std::ffi::CString::new(options).map_err(|_| rustix::io::Errno::INVAL).and_then(|options| {
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount("hugetlbfs", dir, "hugetlbfs", flags, Some(options.as_c_str()))
    });
    mount.map_err(|error| {
        format!("mount huge pages of {} KiB on {}: {error}", page_size / 1_024, dir.display())
    })
}

/// Bind-mounts `source` on `target`.
pub(super) fn bind(source: &Path, target: &Path) -> Result<(), String> {
    rustix::mount::mount_bind(source, target)
        .map_err(|error| format!("bind mount {} on {}: {error}", source.display(), target.display()))
}

/// Whether another filesystem begins at `path`.
pub(super) fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.dev()).ok();
    path.parent().is_some_and(|parent| device(path) != device(parent))
}

/// Unmounts everything at and below `dir`, the deepest first. What could not be unmounted is returned.
///
/// # Errors
/// What is mounted cannot be known: then nothing there may be removed.
pub(crate) fn unmount_below(dir: &Path) -> std::io::Result<Vec<String>> {
    let mounts = std::fs::read("/proc/self/mountinfo")?;
    let mut points: Vec<PathBuf> = mounts
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(unescape)
        .filter(|point| point.starts_with(dir))
        .collect();
    points.sort_by_key(|point| std::cmp::Reverse(point.as_os_str().len()));
    let mut left = Vec::new();
    for point in points {
        // A detached mount goes away with its last user; what is still open must not keep the pod alive.
        if let Err(error) = rustix::mount::unmount(&point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
            && error != rustix::io::Errno::INVAL
        {
            left.push(format!("{} ({error})", point.display()));
        }
    }
    Ok(left)
}

/// `mountinfo` writes blanks and the like as octal escapes.
fn unescape(bytes: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        match escape.and_then(|octal| u8::from_str_radix(std::str::from_utf8(octal).ok()?, 8).ok()) {
            Some(byte) => {
                path.push(byte);
                at += 4;
            }
            None => {
                path.push(bytes[at]);
                at += 1;
            }
        }
    }
    PathBuf::from(std::ffi::OsStr::from_bytes(&path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn env_46_a_memory_volume_is_a_tmpfs_of_its_size_and_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("a b");
        std::fs::create_dir(&volume).unwrap();
        mount_tmpfs(&volume, Some(1 << 20), 0o2770, Some(2_000)).unwrap();
        assert!(is_mount_point(&volume));
        mount_tmpfs(&volume, Some(1 << 20), 0o2770, Some(2_000)).unwrap();
        let limits = rustix::fs::statvfs(&volume).unwrap();
        assert_eq!(limits.f_blocks * limits.f_frsize, 1 << 20);
        let root = std::fs::metadata(&volume).unwrap();
        assert_eq!((root.mode() & 0o7777, root.gid()), (0o2770, 2_000));
        assert!(unmount_below(dir.path()).unwrap().is_empty());
        assert!(!is_mount_point(&volume));
    }
}
