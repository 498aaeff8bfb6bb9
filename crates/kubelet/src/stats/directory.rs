//! What the files below a directory take on the disk.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Disk;

/// Blocks and inodes below `root`, as `du` counts: links are not followed, other file systems not entered, a
/// file with several names counts once. Blocking.
pub(crate) fn usage(root: &Path) -> Disk {
    let mut disk = Disk::default();
    let Ok(metadata) = std::fs::symlink_metadata(root) else { return disk };
    let device = metadata.dev();
    let mut seen = HashSet::new();
    let mut waiting = vec![root.to_owned()];
    disk += Disk { bytes: metadata.blocks() * 512, inodes: 1 };
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            // Files come and go while we look.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.dev() != device
                || (metadata.nlink() > 1 && !metadata.is_dir() && !seen.insert(metadata.ino()))
            {
                continue;
            }
            disk += Disk { bytes: metadata.blocks() * 512, inodes: 1 };
            if metadata.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    disk
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_with_two_names_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), vec![1; 100_000]).unwrap();
        std::fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("c")).unwrap();
        let disk = usage(dir.path());
        assert_eq!(disk.inodes, 3);
        assert!((100_000..200_000).contains(&disk.bytes), "{disk:?}");
        assert_eq!(usage(&dir.path().join("none")), Disk::default());
    }
}
