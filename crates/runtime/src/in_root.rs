//! Opens paths of images and containers, with links followed inside of their root only.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// How often the kernel may give up: it does when anything on the machine is renamed or mounted while it follows a `..`.
const TRIES: u32 = 256;

/// Opens `path` as a process would that has `root` as its root directory.
pub(crate) fn open(root: impl AsFd, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let mut tries = 1;
    loop {
        match openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
            Err(Errno::AGAIN) if tries < TRIES => tries += 1,
            other => return other,
        }
    }
}
