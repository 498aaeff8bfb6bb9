//! A process's stdin, stdout and stderr.
#![allow(unsafe_code)]

use std::os::fd::BorrowedFd;

use rustix::fs::{Gid, Uid};

/// Gives them to the user that the process runs as, so that it can open `/dev/stdout`. `/dev/null` stays
/// root's, and what cannot be given is left.
pub(crate) fn hand_over(uid: u32, gid: u32) {
    let null = rustix::fs::stat("/dev/null").map(|stat| stat.st_rdev).ok();
    for number in 0..3 {
        // SAFETY: stdio is open in this process from its start to its execve.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        let Ok(stat) = rustix::fs::fstat(fd) else {
            continue;
        };
        if Some(stat.st_rdev) != null && stat.st_uid != uid {
            let _ = rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        }
    }
}

/// Sets the size of the terminal at stdin, if there is one.
pub(crate) fn resize(width: u16, height: u16) {
    // SAFETY: stdin is open in this process from its start to its execve.
    let fd = unsafe { BorrowedFd::borrow_raw(0) };
    let size = rustix::termios::Winsize { ws_col: width, ws_row: height, ws_xpixel: 0, ws_ypixel: 0 };
    let _ = rustix::termios::tcsetwinsize(fd, size);
}
