//! The layers below a layer, seen together as the overlay will show them.
//!
//! Nothing here leaves a lower layer: every component of a path that is looked up was seen to be a directory
//! itself, and links are expanded by us. Those layers are finished; nobody changes them.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use crate::unpack::whiteout::OPAQUE_XATTR;

const MAX_LINKS: usize = 40;

/// What a path is in the layers below.
pub(super) enum Found {
    Missing,
    /// The real path of the topmost directory.
    Directory(PathBuf),
    /// The real path of something else.
    Other(PathBuf),
}

/// What the layers below look like together.
pub(super) struct View<'a> {
    /// Their directories, topmost first.
    pub(super) lower: &'a [PathBuf],
}

impl View<'_> {
    /// Looks a path up without following links.
    pub(super) fn look(&self, path: &Path) -> io::Result<Found> {
        let mut here: Vec<PathBuf> = self.lower.to_vec();
        let names: Vec<&OsStr> = path.components().map(Component::as_os_str).collect();
        for (i, name) in names.iter().enumerate() {
            let mut next = Vec::new();
            for dir in &here {
                let real = dir.join(name);
                let meta = match fs::symlink_metadata(&real) {
                    Ok(meta) => meta,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(e),
                };
                if meta.is_dir() {
                    let opaque = has_opaque(&real);
                    next.push(real);
                    if opaque {
                        break;
                    }
                    continue;
                }
                let whiteout = meta.file_type().is_char_device() && meta.rdev() == 0;
                if next.is_empty() && !whiteout {
                    // Something else in the middle of a path hides everything below it.
                    return Ok(if i + 1 == names.len() { Found::Other(real) } else { Found::Missing });
                }
                break;
            }
            if next.is_empty() {
                return Ok(Found::Missing);
            }
            here = next;
        }
        Ok(here.into_iter().next().map_or(Found::Missing, Found::Directory))
    }

    /// Where a path leads when links are followed; `None` when nowhere, or not to a directory.
    pub(super) fn follow(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        let mut todo: Vec<OsString> = path.components().rev().map(|c| c.as_os_str().to_owned()).collect();
        let mut at = PathBuf::new();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == ".." {
                at.pop();
                continue;
            }
            at.push(&name);
            match self.look(&at)? {
                Found::Directory(_) => {}
                Found::Missing => return Ok(None),
                Found::Other(real) => {
                    if !fs::symlink_metadata(&real)?.is_symlink() || links == MAX_LINKS {
                        return Ok(None);
                    }
                    links += 1;
                    at.pop();
                    let target = fs::read_link(&real)?;
                    if target.is_absolute() {
                        at.clear();
                    }
                    let parts = target
                        .components()
                        .filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir));
                    let parts: Vec<OsString> = parts.map(|c| c.as_os_str().to_owned()).collect();
                    todo.extend(parts.into_iter().rev());
                }
            }
        }
        Ok(Some(at))
    }
}

fn has_opaque(dir: &Path) -> bool {
    let mut value = [0u8; 8];
    matches!(rustix::fs::lgetxattr(dir, OPAQUE_XATTR, &mut value), Ok(1) if value[0] == b'y')
}
