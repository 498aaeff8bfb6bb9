//! Processes below the shim: going into the background, reaping, signalling.
#![allow(unsafe_code)]

use std::io;

/// How a child ended, as `waitpid` told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitStatus {
    /// 128 + signal when a signal ended it.
    pub(crate) code: i32,
    /// 0 when it exited.
    pub(crate) signal: i32,
}

impl WaitStatus {
    fn decode(raw: i32) -> Self {
        if libc::WIFSIGNALED(raw) {
            let signal = libc::WTERMSIG(raw);
            Self { code: 128 + signal, signal }
        } else {
            Self { code: libc::WEXITSTATUS(raw), signal: 0 }
        }
    }
}

/// Forks; the parent's side is told `true`.
pub(crate) fn fork_parent() -> io::Result<bool> {
    // SAFETY: the process has one thread, so the child may use everything that it inherits.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(false),
        _ => Ok(true),
    }
}

/// Ends the process at once, without running anything that was registered for its end.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit does not return and touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// Makes this process the parent of its descendants' orphans.
pub(crate) fn become_subreaper() -> io::Result<()> {
    // SAFETY: PR_SET_CHILD_SUBREAPER takes plain integers.
    let result = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One child that has ended, if any.
pub(crate) fn reap() -> Option<(i32, WaitStatus)> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is a valid place for an int.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid > 0 {
            return Some((pid, WaitStatus::decode(status)));
        }
        if pid == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return None;
        }
    }
}

/// Waits for this child.
pub(crate) fn wait_for(pid: i32) -> io::Result<WaitStatus> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is a valid place for an int.
        if unsafe { libc::waitpid(pid, &raw mut status, 0) } == pid {
            return Ok(WaitStatus::decode(status));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Sends a signal to a process, or with a negative number to a process group. Only for children that
/// have not been reaped: their numbers cannot have been given to another.
pub(crate) fn signal(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill takes plain integers.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The processes below `pid`, children before grandchildren, as `/proc` lists them now. The process itself must
/// not have been reaped: then its descendants' numbers belong to the same container still.
pub(crate) fn descendants(pid: i32) -> Vec<i32> {
    let parents: Vec<(i32, i32)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|child: i32| {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).ok()?;
            // `pid (name) state ppid ...`; the name may hold anything.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((child, parent))
        })
        .collect();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(child, _)| *child));
        next += 1;
    }
    found.remove(0);
    found
}
