//! Becoming a user of a user namespace.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Joins a user namespace as one of its users. The process keeps all capabilities in it; what its command gets is
/// decided by [`super::capabilities::limit`] and execve.
pub(crate) fn join(user_namespace: impl AsFd, uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    let check = |result: libc::c_int| match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: an open descriptor, plain integers, and an array of the length said. The process has one thread, so
    // the calls, which are for one thread each, are for all of it.
    unsafe {
        check(libc::setns(user_namespace.as_fd().as_raw_fd(), libc::CLONE_NEWUSER))?;
        check(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0))?;
        check(libc::setgroups(groups.len(), groups.as_ptr()))?;
        check(libc::setresgid(gid, gid, gid))?;
        check(libc::setresuid(uid, uid, uid))
    }
}
