//! How an OCI runtime sees the world: without the shim's blocked signals and its bound of open files, which the
//! container would inherit, and for crun 1.8 on a hybrid cgroup hierarchy without `/sys/fs/cgroup/unified`: it refuses to run while
//! that is mounted. A private mount namespace without it has no side effects.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Prepares what the command does between fork and exec; `open_files` is the bound that it gets.
pub(crate) fn prepare(command: &mut Command, hide_unified: bool, open_files: Option<Rlimit>) {
    // SAFETY: between fork and exec only system calls are made; nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            let mut none = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&raw mut none);
            let old = std::ptr::null_mut();
            if libc::sigprocmask(libc::SIG_SETMASK, &raw const none, old) != 0 {
                return Err(io::Error::last_os_error());
            }
            if let Some(open_files) = open_files {
                setrlimit(Resource::Nofile, open_files)?;
            }
            if hide_unified { without_unified() } else { Ok(()) }
        });
    }
}

fn without_unified() -> io::Result<()> {
    let flags = libc::MS_REC | libc::MS_SLAVE;
    let none = std::ptr::null();
    // SAFETY: plain integers, strings that end in NUL, and null where mount allows it.
    unsafe {
        if libc::unshare(libc::CLONE_NEWNS) != 0
            || libc::mount(none, c"/".as_ptr(), none, flags, none.cast()) != 0
        {
            return Err(io::Error::last_os_error());
        }
        // Not mounted is as good.
        libc::umount2(c"/sys/fs/cgroup/unified".as_ptr(), libc::MNT_DETACH);
    }
    Ok(())
}
