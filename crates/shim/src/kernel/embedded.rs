//! A call of the embedded OCI runtime: a fork of the shim without an exec.
//!
//! The code is in this binary already, so executing the binary again would only load it twice: tens of megabytes
//! to map and page in, for each of the calls that a pod's start and every exec probe are made of. The fork costs
//! the few pages that the shim has.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::children;

/// As Rust's runtime has it for a panic of a main thread.
const PANICKED: u8 = 101;

/// Runs `call` in a child with this stdin, stdout and stderr, and nothing else that is open here; its pid.
pub(crate) fn start(stdio: [OwnedFd; 3], call: impl FnOnce() -> u8) -> io::Result<i32> {
    // SAFETY: the process has one thread, so the child may use everything that it inherits.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = match prepare(&stdio) {
                Ok(()) => catch_unwind(AssertUnwindSafe(call)).unwrap_or(PANICKED),
                Err(_) => PANICKED,
            };
            // Not by returning: the stack below is the shim's.
            children::exit_now(code.into())
        }
        pid => Ok(pid),
    }
}

/// What an exec by `Command` would do: a process group of its own, no blocked signals, only stdio open.
fn prepare(stdio: &[OwnedFd; 3]) -> io::Result<()> {
    let check = |result: i32| match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    };
    // SAFETY: plain integers, descriptors that are open, and a set that sigemptyset initialises. The values that own
    // the descriptors closed here are never dropped in this process: it ends by _exit or by execve.
    unsafe {
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()))?;
        check(libc::setpgid(0, 0))?;
        for (fd, number) in stdio.iter().zip(0..) {
            check(libc::dup2(fd.as_raw_fd(), number))?;
        }
        // Before Linux 5.9 they stay open until execve.
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
    }
    Ok(())
}
