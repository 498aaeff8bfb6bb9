//! How full a file system is.

use std::path::Path;

/// Sizes in bytes, and counts of inodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filesystem {
    pub(crate) capacity: u64,
    /// For those who are not root.
    pub(crate) available: u64,
    pub(crate) used: u64,
    pub(crate) inodes: u64,
    pub(crate) inodes_free: u64,
    /// Its device: two paths with the same one are on the same file system.
    pub(crate) device: u64,
}

/// The file system that `path` is on.
pub(crate) fn filesystem(path: &Path) -> Option<Filesystem> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let device = rustix::fs::stat(path).ok()?.st_dev;
    Some(Filesystem {
        capacity: stat.f_blocks.saturating_mul(stat.f_frsize),
        available: stat.f_bavail.saturating_mul(stat.f_frsize),
        used: stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(stat.f_frsize),
        inodes: stat.f_files,
        inodes_free: stat.f_favail,
        device,
    })
}
