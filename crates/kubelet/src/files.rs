//! Reading files that others wrote: no more of them than a bound, and nothing but plain files where a container may have
//! put something else.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// Opens a plain file. A link is not followed, a FIFO not waited for.
///
/// # Errors
/// Why it cannot be opened; anything but a plain file is an error as well.
pub(crate) fn open_plain(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    plain(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// The open file, which is to be a plain one.
///
/// # Errors
/// It is something else.
pub(crate) fn plain(file: File) -> io::Result<File> {
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("not a regular file")),
    }
}

/// What is in the open file; `None` when that is more than `most` bytes.
///
/// # Errors
/// Why it cannot be read.
pub(crate) fn rest_of(file: File, most: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= most).then_some(bytes))
}

/// What is in the file at `path`; `None` when that is more than `most` bytes.
///
/// # Errors
/// Why it cannot be read.
pub(crate) fn read_bounded(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    rest_of(File::open(path)?, most)
}

/// The same of a text.
///
/// # Errors
/// Why it cannot be read, or that it is no text.
pub(crate) fn read_text_bounded(path: &Path, most: u64) -> io::Result<Option<String>> {
    let text = |bytes| {
        let error = || io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8");
        String::from_utf8(bytes).map_err(|_| error())
    };
    read_bounded(path, most)?.map(text).transpose()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rustix::fs::{CWD, FileType, mknodat};

    use super::*;

    #[test]
    fn no_more_than_the_bound_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "four").unwrap();
        assert_eq!(read_bounded(&path, 4).unwrap().as_deref(), Some(&b"four"[..]));
        assert_eq!(read_text_bounded(&path, 4).unwrap().as_deref(), Some("four"));
        assert_eq!(read_bounded(&path, 3).unwrap(), None);
        std::fs::write(&path, b"\xff").unwrap();
        assert_eq!(read_text_bounded(&path, 4).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn nothing_but_a_plain_file_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let [file, link, fifo] = ["file", "link", "fifo"].map(|name| dir.path().join(name));
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(open_plain(&file).is_ok());
        for path in [dir.path(), &link, &fifo] {
            assert!(open_plain(path).is_err(), "{}", path.display());
        }
    }
}
