//! SIGTERM and SIGINT for a process that is the init of its container.
//!
//! The kernel drops a signal that init has no handler for, so a tool that waits would ignore a pod's deletion
//! until its grace period is over. Blocking the signals and waiting for them on a thread needs no handler.
#![allow(unsafe_code)]

use std::{io, thread};

/// Makes SIGTERM and SIGINT end the process with 128 + their number, whatever the other threads do.
pub(crate) fn end_on_termination() -> io::Result<()> {
    // SAFETY: `set` is initialised by sigemptyset before anything reads it; the calls have no other
    // requirements. The mask is inherited by the thread made below, which alone waits for the signals.
    let set = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTERM);
        libc::sigaddset(&mut set, libc::SIGINT);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        set
    };
    thread::Builder::new().spawn(move || {
        let mut signal = 0;
        // SAFETY: `set` is a valid signal set and `signal` a valid place for the answer.
        unsafe {
            libc::sigwait(&set, &mut signal);
            libc::_exit(128 + signal);
        }
    })?;
    Ok(())
}
