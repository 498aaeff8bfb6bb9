//! Whiteouts: `.wh.name` in a layer hides `name` of the layers below, `.wh..wh..opq` all of a directory.
//!
//! In an overlay, the first is a character device 0/0 and the second an attribute of the directory. A
//! whiteout never hides what its own layer has, in whatever order the two come.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, Mode, Stat, XattrFlags};
use rustix::io::Errno;

use super::error::UnpackError;
use super::tree::Dir;

const PREFIX: &[u8] = b".wh.";
const META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
pub(super) const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

/// What a file name asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Whiteout<'a> {
    /// Hide everything below in this directory.
    Opaque,
    /// Hide this name.
    Name(&'a [u8]),
    /// Bookkeeping of an old storage driver; nothing to do.
    Ignored,
}

/// `None` for ordinary names.
pub(super) fn of(name: &[u8]) -> Result<Option<Whiteout<'_>>, UnpackError> {
    if name == OPAQUE {
        return Ok(Some(Whiteout::Opaque));
    }
    if name.starts_with(META) {
        return Ok(Some(Whiteout::Ignored));
    }
    match name.strip_prefix(PREFIX) {
        None => Ok(None),
        Some(b"" | b"." | b"..") => Err(UnpackError::path(name, "a whiteout of no name")),
        Some(hidden) => Ok(Some(Whiteout::Name(hidden))),
    }
}

/// Hides `name` of the layers below.
pub(super) fn hide(dir: &Dir, name: &[u8]) -> Result<bool, Errno> {
    let os = OsStr::from_bytes(name);
    match rustix::fs::mknodat(dir, os, FileType::CharacterDevice, Mode::empty(), 0) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => {
            // This layer has the name itself. A directory must not be merged with the one below.
            let stat = rustix::fs::statat(dir, os, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                set_opaque(&super::tree::open_step(dir, name)?)?;
            }
            Ok(false)
        }
        Err(e) => Err(e),
    }
}

/// Hides everything below in a directory.
pub(super) fn set_opaque(dir: &impl AsFd) -> Result<(), Errno> {
    rustix::fs::fsetxattr(dir, OPAQUE_XATTR, b"y", XattrFlags::empty())
}

/// Whether everything below in a directory is hidden.
pub(super) fn is_opaque(dir: &impl AsFd) -> bool {
    let mut value = [0u8; 8];
    matches!(rustix::fs::fgetxattr(dir, OPAQUE_XATTR, &mut value[..]), Ok(1) if value[0] == b'y')
}

pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names() {
        assert_eq!(of(b"file").unwrap(), None);
        assert_eq!(of(b".wh.file").unwrap(), Some(Whiteout::Name(b"file")));
        assert_eq!(of(b".wh..wh..opq").unwrap(), Some(Whiteout::Opaque));
        assert_eq!(of(b".wh..wh.plnk").unwrap(), Some(Whiteout::Ignored));
        for bad in [&b".wh."[..], b".wh..", b".wh..."] {
            assert!(of(bad).is_err());
        }
    }
}
