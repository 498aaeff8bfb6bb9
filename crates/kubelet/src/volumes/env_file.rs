//! Files of variables in a volume (`fileKeyRef`, ENV-43): a container wrote them, so links are not followed and nothing
//! but a plain file of a bounded size is read.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::files;

/// Bytes of a file; more is an error.
const MAX_FILE: u64 = 1 << 20;

/// The file `path` of the volume at `volume`; `None` when there is none.
///
/// # Errors
/// Why it cannot be read, for the container's waiting message.
pub(crate) fn read(volume: &Path, path: &str) -> Result<Option<String>, String> {
    match open(volume, path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("failed to open environment variable file {path:?}: {error}")),
    }
}

fn open(volume: &Path, path: &str) -> io::Result<String> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(volume, directory, Mode::empty())?;
    // NONBLOCK: a FIFO must not hang the kubelet.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = files::plain(File::from(rustix::fs::openat2(&root, path, flags, Mode::empty(), within)?))?;
    let bytes = files::rest_of(file, MAX_FILE)?.ok_or_else(|| io::Error::other("larger than 1 MiB"))?;
    String::from_utf8(bytes).map_err(|_| io::Error::other("not UTF-8"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn env_43_a_file_never_leads_out_of_its_volume() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        std::fs::create_dir(&volume).unwrap();
        std::fs::write(dir.path().join("outside"), "A='secret'").unwrap();
        std::os::unix::fs::symlink("../outside", volume.join("link")).unwrap();
        std::fs::write(volume.join("good"), "A='b'").unwrap();
        assert_eq!(read(&volume, "good"), Ok(Some("A='b'".to_owned())));
        assert_eq!(read(&volume, "missing"), Ok(None));
        for path in ["link", "../outside", "."] {
            assert!(read(&volume, path).is_err(), "{path}");
        }
    }
}
