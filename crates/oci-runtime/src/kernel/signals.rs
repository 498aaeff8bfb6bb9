//! Signals, to a process or to the one behind a descriptor.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};

use crate::{Error, Result};

/// Sends a signal (also a real-time one, which lists of names do not have); a process that has ended is fine.
pub(crate) fn send(pid: i32, descriptor: Option<&OwnedFd>, signal: i32) -> Result<()> {
    let sent = match descriptor {
        // SAFETY: an open descriptor, plain integers, and null where the call takes it.
        Some(fd) => unsafe {
            let none = std::ptr::null::<libc::siginfo_t>();
            libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal, none, 0)
        },
        // SAFETY: kill takes plain integers.
        None => libc::c_long::from(unsafe { libc::kill(pid, signal) }),
    };
    if sent == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ESRCH) => Ok(()),
        _ => Err(Error::text(format!("signal {signal} to {pid}: {error}"))),
    }
}
