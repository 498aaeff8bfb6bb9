//! `fsGroup`: the volume belongs to the group, and the group may use it (ENV-02).

use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::Path;

/// The mode of a directory of a volume that belongs to `group`: new files get the group, too.
pub(super) fn of_directory(mode: u32, group: Option<u32>, read_only: bool) -> u32 {
    match group {
        Some(_) => of_file(mode, group, read_only) | 0o2110,
        None => mode,
    }
}

/// The mode of a file: readable by the group in a volume that nobody writes, else writable.
pub(super) fn of_file(mode: u32, group: Option<u32>, read_only: bool) -> u32 {
    match group {
        Some(_) => mode | if read_only { 0o440 } else { 0o660 },
        None => mode,
    }
}

/// Gives a file or directory to its group, then the mode.
pub(super) fn set(path: &Path, mode: u32, group: Option<u32>) -> std::io::Result<()> {
    if group.is_some() {
        lchown(path, None, group)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}
