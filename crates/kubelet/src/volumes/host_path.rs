//! `hostPath` volumes: the check that the path is what the pod says it is (ENV-51).

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

/// Checks `path` against `kind`, and makes it where the kind says so.
pub(super) fn check(path: &str, kind: &str) -> Result<(), String> {
    if path.split('/').any(|part| part == "..") {
        return Err(format!("invalid HostPath `{path}`: must not contain '..'"));
    }
    let metadata = || std::fs::metadata(path);
    let is = |wanted: fn(&std::fs::FileType) -> bool, what: &str| match metadata() {
        Ok(metadata) if wanted(&metadata.file_type()) => Ok(()),
        _ => Err(format!("hostPath type check failed: {path} is not a {what}")),
    };
    let failed = |error: std::io::Error| format!("{path}: {error}");
    match kind {
        "" => {
            // Docker's old habit, which runtimes keep: a missing source of a bind mount becomes a directory.
            if !Path::new(path).exists() {
                std::fs::create_dir_all(path).map_err(failed)?;
            }
            Ok(())
        }
        "DirectoryOrCreate" => {
            if !Path::new(path).exists() {
                std::fs::create_dir_all(path).map_err(failed)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
            }
            is(std::fs::FileType::is_dir, "directory")
        }
        "Directory" => is(std::fs::FileType::is_dir, "directory"),
        "FileOrCreate" => {
            if !Path::new(path).exists() {
                std::fs::File::create(path).map_err(failed)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).map_err(failed)?;
            }
            is(std::fs::FileType::is_file, "file")
        }
        "File" => is(std::fs::FileType::is_file, "file"),
        "Socket" => is(FileTypeExt::is_socket, "socket file"),
        "CharDevice" => is(FileTypeExt::is_char_device, "character device"),
        "BlockDevice" => is(FileTypeExt::is_block_device, "block device"),
        other => Err(format!("{other} is an invalid volume type")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn env_51_types() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        assert!(check(&path(&file), "FileOrCreate").is_ok());
        assert!(check(&path(&file), "File").is_ok());
        assert_eq!(
            check(&path(&file), "Directory").unwrap_err(),
            format!("hostPath type check failed: {} is not a directory", path(&file))
        );
        assert!(check(&path(&dir.path().join("d")), "DirectoryOrCreate").is_ok());
        assert_eq!(
            check(&path(&file), "Socket").unwrap_err(),
            format!("hostPath type check failed: {} is not a socket file", path(&file))
        );
        assert!(check("/dev/null", "CharDevice").is_ok());
        assert!(check("/dev/null", "BlockDevice").unwrap_err().ends_with("is not a block device"));
        assert!(check(&path(&dir.path().join("x")), "Directory").is_err());
        let socket = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        assert!(check(&path(&dir.path().join("s")), "Socket").is_ok());
        drop(socket);
        assert!(check("/dev/null", "File").unwrap_err().ends_with("is not a file"));
        assert!(check(&path(&file), "CharDevice").unwrap_err().ends_with("is not a character device"));
        assert_eq!(
            check("/a/../etc", "").unwrap_err(),
            "invalid HostPath `/a/../etc`: must not contain '..'"
        );
        assert_eq!(check("/", "Door").unwrap_err(), "Door is an invalid volume type");
    }
}
