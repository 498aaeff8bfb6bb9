//! Signals as a file descriptor.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Blocks the signals that concern the shim and returns where they arrive. SIGCHLD means something ended;
/// the others are blocked so that a stray `kill` or a closing terminal does not end a pod.
/// (Programs run by `Command` start with an empty mask.)
pub(crate) fn signal_fd() -> io::Result<OwnedFd> {
    // SAFETY: `set` is initialised by sigemptyset before anything reads it; the descriptor is new and ours.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Takes everything out of it.
pub(crate) fn drain(fd: &OwnedFd) {
    let mut buffer = [0_u8; 1024];
    // SAFETY: the buffer is as long as said.
    while unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) } > 0 {}
}
