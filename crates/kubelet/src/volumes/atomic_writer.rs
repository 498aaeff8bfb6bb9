//! Writes a set of files so that readers see the old set or the new one, never a mixture (ENV-47): the files
//! are in a timestamped directory, `..data` is a link to it that is replaced by rename, and each visible name
//! is a link through `..data`.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path};

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) content: Vec<u8>,
    /// Permission bits.
    pub(super) mode: u32,
    /// The owner, where it is not root.
    pub(super) owner: Option<u32>,
}

/// Files by path relative to the volume.
pub(super) type Files = BTreeMap<String, File>;

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// Makes `dir` hold exactly `files`; false when it already did.
pub(super) fn write(dir: &Path, files: &Files) -> std::io::Result<bool> {
    for path in files.keys() {
        check_path(path)?;
    }
    let data = dir.join(DATA);
    let current = std::fs::read_link(&data).ok();
    if let Some(current) = &current
        && same_content(&dir.join(current), files)
    {
        return Ok(false);
    }
    let stamp = jiff::Zoned::now().strftime("..%Y_%m_%d_%H_%M_%S").to_string();
    let name = format!("{stamp}.{}", rand::random::<u32>());
    let new_dir = dir.join(&name);
    std::fs::create_dir(&new_dir)?;
    std::fs::set_permissions(&new_dir, std::fs::Permissions::from_mode(0o755))?;
    for (path, file) in files {
        let target = new_dir.join(path);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&target, &file.content)?;
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(file.mode))?;
        if let Some(owner) = file.owner {
            std::os::unix::fs::chown(&target, Some(owner), None)?;
        }
    }
    let new_data = dir.join(NEW_DATA);
    let _ = std::fs::remove_file(&new_data);
    symlink(&name, &new_data)?;
    std::fs::rename(&new_data, &data)?;
    link_names(dir, files)?;
    if let Some(current) = current {
        let _ = std::fs::remove_dir_all(dir.join(current));
    }
    Ok(true)
}

/// Links each first path component to its place below `..data`, and removes links without a file.
fn link_names(dir: &Path, files: &Files) -> std::io::Result<()> {
    let names: BTreeSet<&str> = files.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &names {
        let link = dir.join(name);
        if std::fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in std::fs::read_dir(dir)?.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if !name.starts_with("..") && !names.contains(name) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn same_content(dir: &Path, files: &Files) -> bool {
    let mut found = 0;
    count_files(dir, &mut found);
    found == files.len()
        && files.iter().all(|(path, file)| {
            let path = dir.join(path);
            let mode = std::fs::metadata(&path).map(|metadata| metadata.permissions().mode() & 0o777);
            // Group bits may have been widened for fsGroup.
            mode.is_ok_and(|mode| mode & !0o070 == file.mode & 0o777 & !0o070)
                && std::fs::read(&path).is_ok_and(|content| content == file.content)
        })
}

fn count_files(dir: &Path, found: &mut usize) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            count_files(&entry.path(), found);
        } else {
            *found += 1;
        }
    }
}

fn check_path(path: &str) -> std::io::Result<()> {
    let plain = !path.is_empty()
        && !path.starts_with("..")
        && Path::new(path).components().all(|component| matches!(component, Component::Normal(_)));
    if plain {
        return Ok(());
    }
    Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, format!("invalid path {path:?} in a volume")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        list.iter()
            .map(|(path, content)| {
                ((*path).to_owned(), File { content: content.as_bytes().into(), mode: 0o640, owner: None })
            })
            .collect()
    }

    #[test]
    fn env_47_files_are_swapped_at_once() {
        let dir = tempfile::tempdir().unwrap();
        assert!(write(dir.path(), &files(&[("a", "1"), ("sub/b", "2")])).unwrap());
        assert!(!write(dir.path(), &files(&[("a", "1"), ("sub/b", "2")])).unwrap());
        let first = std::fs::read_link(dir.path().join("..data")).unwrap();
        assert_eq!(std::fs::read_link(dir.path().join("a")).unwrap(), Path::new("..data/a"));
        assert_eq!(std::fs::read_to_string(dir.path().join("sub/b")).unwrap(), "2");
        assert_eq!(std::fs::metadata(dir.path().join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(write(dir.path(), &files(&[("a", "3"), ("c", "4")])).unwrap());
        assert_eq!(std::fs::read_to_string(dir.path().join("a")).unwrap(), "3");
        assert!(!dir.path().join("sub").exists());
        assert!(!dir.path().join(first).exists());
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["../x", "/x", "a/../../x", "..data/x", ""] {
            assert!(write(dir.path(), &files(&[(path, "1")])).is_err(), "{path}");
        }
    }
}
