//! Room on the disk.
//!
//! A pull does not take the last of it: the API's store is often on the same file system, and a node that cannot
//! write down what happens is worse than an image that does not come.

use std::os::fd::AsFd;

use rustix::io::Errno;

/// What is left to others: a fiftieth of the file system, at most 64 MiB.
const SHARE: u64 = 50;
const MOST: u64 = 64 << 20;
/// Bytes that a writer writes between two looks; several write at a time.
const STEP: u64 = 256 << 10;

/// Bytes that pulls may still write to the file system of an open file or directory.
pub(crate) fn left(on: &impl AsFd) -> Result<u64, Errno> {
    let now = rustix::fs::fstatvfs(on)?;
    let reserved = (now.f_blocks.saturating_mul(now.f_frsize) / SHARE).min(MOST);
    Ok(now.f_bavail.saturating_mul(now.f_frsize).saturating_sub(reserved))
}

/// One writer's count since its last look.
#[derive(Debug)]
pub(crate) struct Room {
    unseen: u64,
}

impl Default for Room {
    /// Looks at the first write.
    fn default() -> Self {
        Self { unseen: STEP }
    }
}

impl Room {
    /// Counts what is about to be written.
    ///
    /// # Errors
    /// `NOSPC`, the kernel's own answer, when it would take what is left to others.
    pub(crate) fn take(&mut self, on: &impl AsFd, bytes: u64) -> Result<(), Errno> {
        self.unseen = self.unseen.saturating_add(bytes);
        if self.unseen < STEP {
            return Ok(());
        }
        self.unseen = 0;
        if left(on)? < bytes { Err(Errno::NOSPC) } else { Ok(()) }
    }
}
