//! The lock on a store's directory: one process at a time, and the second one learns who has it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::Error;

/// Holds `<directory>/lock` for as long as it lives; the kernel lets go of it when the process dies.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes the lock and writes this process's number into it.
    pub(super) fn acquire(directory: &Path) -> Result<Self, Error> {
        let path = directory.join("lock");
        let failed = |operation| {
            let path = path.clone();
            move |source| Error::Io { operation, path, source }
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed("open"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let _unreadable_is_zero = (&file).take(32).read_to_string(&mut text);
                let pid = text.trim().parse().unwrap_or(0);
                return Err(Error::Locked { directory: directory.to_owned(), pid });
            }
            Err(errno) => return Err(failed("lock")(errno.into())),
        }
        file.set_len(0).map_err(failed("write"))?;
        file.seek(SeekFrom::Start(0)).map_err(failed("write"))?;
        writeln!(file, "{}", std::process::id()).map_err(failed("write"))?;
        Ok(Self { _file: file })
    }
}
