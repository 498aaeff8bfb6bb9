//! Writes a set of files so that readers see the old set or the new one, never a mixture (ENV-47): the files
//! are in a timestamped directory, `..data` is a link to it that is replaced by rename, and each visible name
//! is a link through `..data`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Component, Path};

use super::ownership;

/// One file. No `Debug`: it may be a secret.
#[derive(Clone, PartialEq, Eq)]
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

/// Makes `dir` hold exactly `files`, readable by `group`; false when it already did. A writer that was killed at any
/// point is made good by the next one.
pub(super) fn write(dir: &Path, files: &Files, group: Option<u32>) -> std::io::Result<bool> {
    for path in files.keys() {
        check_path(path)?;
    }
    let current = std::fs::read_link(dir.join(DATA)).ok();
    remove_others(dir, current.as_deref())?;
    if let Some(current) = &current
        && same_content(&dir.join(current), files, group)
    {
        link_names(dir, files)?;
        return Ok(false);
    }
    let stamp = jiff::Zoned::now().strftime("..%Y_%m_%d_%H_%M_%S").to_string();
    let name = format!("{stamp}.{}", rand::random::<u32>());
    write_all(&dir.join(&name), files, group)?;
    let new_data = dir.join(NEW_DATA);
    symlink(&name, &new_data)?;
    std::fs::rename(&new_data, dir.join(DATA))?;
    link_names(dir, files)?;
    if let Some(current) = current {
        super::removal::remove(&dir.join(current))?;
    }
    Ok(true)
}

/// Removes what is hidden and not the current data: of a writer that did not come to its end.
fn remove_others(dir: &Path, current: Option<&Path>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)?.flatten() {
        let name = entry.file_name();
        let hidden = name.as_encoded_bytes().starts_with(b"..") && name != DATA;
        if hidden && current.is_none_or(|current| current.as_os_str() != name) {
            super::removal::remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Writes the files into a new directory; each has its mode and owner before it can be found.
fn write_all(new_dir: &Path, files: &Files, group: Option<u32>) -> std::io::Result<()> {
    make_directory(new_dir, group)?;
    for (path, file) in files {
        let mut directory = new_dir.to_owned();
        for part in Path::new(path).parent().into_iter().flat_map(Path::components) {
            directory.push(part);
            if !directory.is_dir() {
                make_directory(&directory, group)?;
            }
        }
        let target = new_dir.join(path);
        let mut open = std::fs::OpenOptions::new();
        open.write(true).create_new(true).mode(0o600).open(&target)?.write_all(&file.content)?;
        lchown(&target, file.owner, group)?;
        let mode = ownership::of_file(file.mode & 0o777, group, true);
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn make_directory(path: &Path, group: Option<u32>) -> std::io::Result<()> {
    std::fs::create_dir(path)?;
    ownership::set(path, ownership::of_directory(0o755, group, true), group)
}

/// Links each first path component to its place below `..data`, and removes links without a file. What is no link is
/// not of this writer: it stays, except where a link has to be.
fn link_names(dir: &Path, files: &Files) -> std::io::Result<()> {
    let names: BTreeSet<&str> = files.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &names {
        let link = dir.join(name);
        match std::fs::symlink_metadata(&link) {
            Ok(found) if found.is_symlink() => continue,
            Ok(_) => super::removal::remove(&link)?,
            Err(_) => {}
        }
        symlink(Path::new(DATA).join(name), &link)?;
    }
    for entry in std::fs::read_dir(dir)?.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_link = entry.file_type()?.is_symlink();
        if is_link && !name.starts_with("..") && !names.contains(name) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn same_content(dir: &Path, files: &Files, group: Option<u32>) -> bool {
    let mut found = 0;
    count_files(dir, &mut found);
    found == files.len()
        && files.iter().all(|(path, file)| {
            let path = dir.join(path);
            let mode = ownership::of_file(file.mode & 0o777, group, true);
            let is = |metadata: &std::fs::Metadata| {
                metadata.permissions().mode() & 0o777 == mode && metadata.len() == file.content.len() as u64
            };
            std::fs::metadata(&path).is_ok_and(|metadata| is(&metadata))
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

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn env_47_files_are_swapped_at_once() {
        let dir = tempfile::tempdir().unwrap();
        assert!(write(dir.path(), &files(&[("a", "1"), ("sub/b", "2")]), None).unwrap());
        assert!(!write(dir.path(), &files(&[("a", "1"), ("sub/b", "2")]), None).unwrap());
        let first = std::fs::read_link(dir.path().join("..data")).unwrap();
        assert_eq!(std::fs::read_link(dir.path().join("a")).unwrap(), Path::new("..data/a"));
        assert_eq!(std::fs::read_to_string(dir.path().join("sub/b")).unwrap(), "2");
        assert_eq!(mode(&dir.path().join("a")), 0o640);
        assert!(write(dir.path(), &files(&[("a", "3"), ("c", "4")]), None).unwrap());
        assert_eq!(std::fs::read_to_string(dir.path().join("a")).unwrap(), "3");
        assert!(!dir.path().join("sub").exists());
        assert!(!dir.path().join(first).exists());
    }

    #[test]
    fn env_47_readers_never_see_a_mixture() {
        let dir = tempfile::tempdir().unwrap();
        let version = |n: usize| files(&[("a", n.to_string().as_str()), ("b", n.to_string().as_str())]);
        write(dir.path(), &version(0), None).unwrap();
        let path = dir.path().to_owned();
        let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let over = std::sync::Arc::clone(&done);
        let reader = std::thread::spawn(move || {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                // As an application that opens the directory once does.
                let Ok(data) = std::fs::canonicalize(path.join("..data")) else { continue };
                let read = |name: &str| std::fs::read_to_string(data.join(name));
                if let (Ok(a), Ok(b)) = (read("a"), read("b")) {
                    assert_eq!(a, b);
                }
                std::fs::symlink_metadata(path.join("a")).unwrap();
            }
        });
        for n in 1..300 {
            write(dir.path(), &version(n), None).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        reader.join().unwrap();
    }

    #[test]
    fn a_writer_that_was_killed_is_made_good() {
        let dir = tempfile::tempdir().unwrap();
        let all = files(&[("a", "1"), ("b", "2")]);
        // Before the swap.
        std::fs::create_dir(dir.path().join("..2020_01_01_00_00_00.1")).unwrap();
        std::fs::write(dir.path().join("..2020_01_01_00_00_00.1/a"), "half").unwrap();
        symlink("..2020_01_01_00_00_00.1", dir.path().join(NEW_DATA)).unwrap();
        write(dir.path(), &all, None).unwrap();
        // After it, before the links.
        std::fs::remove_file(dir.path().join("b")).unwrap();
        symlink("..data/old", dir.path().join("old")).unwrap();
        assert!(!write(dir.path(), &all, None).unwrap());
        let mut names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        names.sort();
        assert_eq!(names.len(), 4, "{names:?}");
        assert_eq!((&names[1], &names[2], &names[3]), (&"..data".into(), &"a".into(), &"b".into()));
        assert_eq!(std::fs::read_to_string(dir.path().join("b")).unwrap(), "2");
    }

    #[test]
    fn env_47_a_directory_in_the_way_stops_no_update() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &files(&[("a", "1")]), None).unwrap();
        std::fs::create_dir(dir.path().join("later")).unwrap();
        std::fs::create_dir(dir.path().join("other")).unwrap();
        write(dir.path(), &files(&[("a", "2")]), None).unwrap();
        write(dir.path(), &files(&[("a", "2"), ("later", "3")]), None).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("later")).unwrap(), "3");
        assert!(dir.path().join("other").is_dir());
    }

    #[test]
    fn env_02_a_group_may_read_what_it_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let secret = |content: &str| {
            Files::from([("k".to_owned(), File { content: content.into(), mode: 0o400, owner: Some(1_000) })])
        };
        assert!(write(dir.path(), &secret("1"), Some(2_000)).unwrap());
        assert!(!write(dir.path(), &secret("1"), Some(2_000)).unwrap());
        let file = std::fs::metadata(dir.path().join("k")).unwrap();
        let owner = (std::os::unix::fs::MetadataExt::uid(&file), std::os::unix::fs::MetadataExt::gid(&file));
        assert_eq!((owner, mode(&dir.path().join("k"))), ((1_000, 2_000), 0o440));
        assert_eq!(mode(&std::fs::canonicalize(dir.path().join("..data")).unwrap()), 0o2755);
    }

    #[test]
    fn ten_thousand_keys() {
        let dir = tempfile::tempdir().unwrap();
        let mut all: Files = (0..10_000)
            .map(|n| (format!("key-{n}"), File { content: vec![b'x'; 100], mode: 0o644, owner: None }))
            .collect();
        write(dir.path(), &all, None).unwrap();
        all.retain(|name, _| name.ends_with('7'));
        write(dir.path(), &all, None).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1_002);
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["../x", "/x", "a/../../x", "..data/x", ""] {
            assert!(write(dir.path(), &files(&[(path, "1")]), None).is_err(), "{path}");
        }
        // One is a file, the other wants it to be a directory.
        assert!(write(dir.path(), &files(&[("a", "1"), ("a/b", "2")]), None).is_err());
        assert!(!dir.path().join("..data").exists());
    }
}
