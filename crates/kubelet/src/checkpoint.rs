//! Small records that must outlive the daemon, as JSON files for root only: written whole or not at all, read with a
//! bound. They guard against a daemon that is killed, not against a machine that loses its power (with which the
//! containers are gone as well), so nothing waits for the disk.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::files::read_bounded;

/// More than any record has.
const MAX_RECORD: u64 = 1 << 20;

/// Reads a record; `None` when there is no such file.
///
/// # Errors
/// The file, and why it cannot be read or understood.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    match read_bounded(path, MAX_RECORD) {
        Ok(Some(bytes)) => serde_json::from_slice(&bytes).map(Some).map_err(|error| failed(&error)),
        Ok(None) => Err(failed(&"larger than any record")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&error)),
    }
}

/// Writes a record, and the directory it is in if need be.
///
/// # Errors
/// The file, and why it cannot be written.
pub(crate) fn write(path: &Path, record: &impl Serialize) -> Result<(), String> {
    let json = serde_json::to_vec(record).map_err(|error| error.to_string())?;
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(format!("{}: no name of a file", path.display()));
    };
    let temporary = dir.join(format!(".{}.tmp", name.to_string_lossy()));
    let write = || -> std::io::Result<()> {
        if !dir.is_dir() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&json)?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| format!("{}: {error}", path.display()))
}
