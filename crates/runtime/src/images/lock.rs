//! One process at a time has the store: opening it clears away what a killed process left, and what another one is
//! at looks the same.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::ImageError;

/// The lock, when it is wanted; goes with the process or its last user. Makes the directory, for root only: images may
/// be private, and their files may be setuid.
pub(super) fn take(dir: &Path, exclusive: bool) -> Result<Option<File>, ImageError> {
    fs::create_dir_all(dir).map_err(|e| ImageError::io("create", dir, e))?;
    fs::set_permissions(dir, Permissions::from_mode(0o700))
        .map_err(|e| ImageError::io("set the mode of", dir, e))?;
    if !exclusive {
        return Ok(None);
    }
    let path = dir.join("images.lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|e| ImageError::io("open", &path, e))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            // For those who meet it.
            fs::write(&path, std::process::id().to_string())
                .map_err(|e| ImageError::io("write", &path, e))?;
            Ok(Some(file))
        }
        Err(Errno::WOULDBLOCK) => {
            let holder = fs::read_to_string(&path).unwrap_or_default();
            Err(ImageError::Busy { path: dir.to_owned(), holder })
        }
        Err(e) => Err(ImageError::io("lock", &path, e.into())),
    }
}
