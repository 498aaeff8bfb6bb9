//! The directory of an OCI layout as the archive that it could be: the store reads archives only.

use std::fs::File;
use std::io::{self, PipeWriter};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Whether a directory holds a layout.
pub(super) fn is_layout(dir: &Path) -> bool {
    ["index.json", "manifest.json"].iter().any(|name| dir.join(name).is_file())
}

/// A tar of the layout in `dir`, written by a thread while it is read. What goes wrong meanwhile is put into
/// `failed`.
///
/// # Errors
/// When the directory holds no layout.
pub fn pack(dir: &Path, failed: Arc<OnceLock<String>>) -> io::Result<File> {
    if !is_layout(dir) {
        let text = format!("{} is a directory without an index.json: not an OCI layout", dir.display());
        return Err(io::Error::other(text));
    }
    let (reader, writer) = io::pipe()?;
    let dir = dir.to_owned();
    std::thread::spawn(move || {
        // A reader that went away has its own reason.
        if let Err(error) = write(&dir, writer)
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            let _ = failed.set(error.to_string());
        }
    });
    Ok(OwnedFd::from(reader).into())
}

fn write(dir: &Path, writer: PipeWriter) -> io::Result<()> {
    let mut tar = tar::Builder::new(writer);
    tar.sparse(false);
    for name in ["oci-layout", "index.json", "manifest.json"] {
        if dir.join(name).is_file() {
            tar.append_path_with_name(dir.join(name), name)?;
        }
    }
    let blobs = dir.join("blobs");
    if blobs.is_dir() {
        for algorithm in std::fs::read_dir(&blobs)? {
            let algorithm = algorithm?;
            for blob in std::fs::read_dir(algorithm.path())? {
                let blob = blob?;
                let name = Path::new("blobs").join(algorithm.file_name()).join(blob.file_name());
                if blob.path().is_file() {
                    tar.append_path_with_name(blob.path(), name)?;
                }
            }
        }
    }
    tar.finish()
}
