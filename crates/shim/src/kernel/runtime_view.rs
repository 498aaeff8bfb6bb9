//! The view of the host that crun 1.8 needs on a hybrid cgroup hierarchy: it refuses to run while
//! `/sys/fs/cgroup/unified` is mounted. A private mount namespace without it has no side effects.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Lets the command run where the unified hierarchy of a hybrid set-up is not mounted.
pub(crate) fn hide_unified(command: &mut Command) {
    // SAFETY: between fork and exec only system calls are made; nothing is allocated.
    unsafe {
        command.pre_exec(|| {
            if libc::unshare(libc::CLONE_NEWNS) != 0 {
                return Err(io::Error::last_os_error());
            }
            let flags = libc::MS_REC | libc::MS_SLAVE;
            let none = std::ptr::null();
            if libc::mount(none, c"/".as_ptr(), none, flags, none.cast()) != 0 {
                return Err(io::Error::last_os_error());
            }
            // Not mounted is as good.
            libc::umount2(c"/sys/fs/cgroup/unified".as_ptr(), libc::MNT_DETACH);
            Ok(())
        });
    }
}
