//! The directory of an OCI layout as the archive that it could be: the server reads archives only.

use std::{
    fs::File,
    io::{PipeWriter, Result as IoResult},
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, OnceLock},
};

use anyhow::{Context, Result, ensure};

/// A tar of the layout in `dir`, written while it is read. What goes wrong meanwhile is put into `failed`.
pub(super) fn pack(dir: &Path, failed: Arc<OnceLock<String>>) -> Result<File> {
    let is_layout = ["index.json", "manifest.json"].iter().any(|name| dir.join(name).is_file());
    ensure!(is_layout, "{} is a directory without an index.json: not an OCI layout", dir.display());
    let (reader, writer) = std::io::pipe().context("making a pipe")?;
    let dir = dir.to_owned();
    std::thread::spawn(move || {
        if let Err(error) = write(&dir, writer) {
            // A reader that went away has its own reason.
            let _ = failed.set(error.to_string());
        }
    });
    Ok(OwnedFd::from(reader).into())
}

fn write(dir: &Path, writer: PipeWriter) -> IoResult<()> {
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
