//! Removing a directory without ever going into what is mounted below it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Removes a directory with its content; that it is not there is fine. Stops with an error where another file system
/// begins: an image or a volume that could not be unmounted is not ours to empty.
pub(crate) fn remove_tree(dir: &Path) -> io::Result<()> {
    match fs::symlink_metadata(dir) {
        Ok(meta) => remove(dir, meta.dev()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn remove(path: &Path, device: u64) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    if meta.dev() != device {
        let message = format!("{} is still mounted", path.display());
        return Err(io::Error::new(io::ErrorKind::CrossesDevices, message));
    }
    if !meta.is_dir() {
        return fs::remove_file(path);
    }
    for entry in fs::read_dir(path)? {
        remove(&entry?.path(), device)?;
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

    use super::*;

    #[test]
    fn what_is_mounted_below_stays() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = dir.path().join("bundle");
        let mounted = bundle.join("rootfs");
        fs::create_dir_all(&mounted).unwrap();
        fs::write(bundle.join("config.json"), "{}").unwrap();
        mount("tmpfs", &mounted, "tmpfs", MountFlags::empty(), None).unwrap();
        fs::write(mounted.join("precious"), "").unwrap();
        let error = remove_tree(&bundle).unwrap_err();
        assert!(error.to_string().contains("still mounted"), "{error}");
        assert!(mounted.join("precious").exists());
        unmount(&mounted, UnmountFlags::DETACH).unwrap();
        remove_tree(&bundle).unwrap();
        assert!(!bundle.exists());
        remove_tree(&bundle).unwrap();
    }
}
