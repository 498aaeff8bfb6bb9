//! Reading and writing key material: bounded reads, atomic writes, tight modes from the first byte on.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use super::PkiError;

/// More than any certificate or key of ours needs.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Mode of private keys.
pub(super) const PRIVATE: u32 = 0o600;
/// Mode of certificates.
pub(super) const PUBLIC: u32 = 0o644;

fn error(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> PkiError {
    move |source| PkiError::File { operation, path: path.to_owned(), source }
}

pub(super) fn make_directory(path: &Path) -> Result<(), PkiError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(error("create directory", path))
}

/// The file's text; `None` when there is no such file. A private key that others can read is tightened.
pub(super) fn read(path: &Path, mode: u32) -> Result<Option<String>, PkiError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(source) if source.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(error("open", path)(source)),
    };
    let metadata = file.metadata().map_err(error("stat", path))?;
    if mode == PRIVATE && metadata.permissions().mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "private key was readable by others; mode set to 0600");
        fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE)).map_err(error("chmod", path))?;
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(error("read", path))?;
    Ok(Some(text))
}

/// Writes the file whole or not at all, also over a crash.
pub(super) fn write(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    match fs::remove_file(&temporary) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            return Err(error("remove", &temporary)(source));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .map_err(error("create", &temporary))?;
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(error("chmod", &temporary))?;
    file.write_all(text.as_bytes()).map_err(error("write", &temporary))?;
    file.sync_all().map_err(error("sync", &temporary))?;
    fs::rename(&temporary, path).map_err(error("rename to", path))?;
    if let Some(directory) = path.parent() {
        File::open(directory).and_then(|d| d.sync_all()).map_err(error("sync", directory))?;
    }
    Ok(())
}
