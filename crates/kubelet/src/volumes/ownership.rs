//! `fsGroup`: the volume belongs to the group and the group may use it.

use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::Path;

/// Gives everything below `dir` to `group`; files of a read-only volume become group-readable, others
/// group-writable.
pub(super) fn apply_fs_group(dir: &Path, group: Option<i64>, read_only: bool) -> Result<(), String> {
    let Some(group) = group.and_then(|group| u32::try_from(group).ok()) else { return Ok(()) };
    apply(dir, group, read_only).map_err(|error| format!("fsGroup of {}: {error}", dir.display()))
}

fn apply(path: &Path, group: u32, read_only: bool) -> std::io::Result<()> {
    let metadata = std::fs::symlink_metadata(path)?;
    lchown(path, None, Some(group))?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mut mode = metadata.permissions().mode() | if read_only { 0o440 } else { 0o660 };
    if metadata.is_dir() {
        // New files get the group, too.
        mode |= 0o2110;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o7777))?;
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path)?.flatten() {
            apply(&entry.path(), group, read_only)?;
        }
    }
    Ok(())
}
