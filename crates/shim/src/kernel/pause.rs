//! The pause process: pid 1 of a pid namespace that the pod's containers share.
//!
//! It is a fork of the shim without an exec, so it costs a few dirty pages and nothing else. It gives up
//! everything: descriptors, capabilities, user. What is left reaps orphans until SIGTERM or SIGKILL.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::{children, namespaces};

/// The user that owns nothing (as of upstream's pause image).
const NOBODY: u32 = 65535;

/// Starts it in a new pid namespace, which belongs to the user namespace pinned at `user` (none: the host's), and
/// in the namespaces pinned at `join`; returns its pid out here.
pub(crate) fn start(user: Option<&Path>, join: &[&Path]) -> io::Result<i32> {
    let namespaces = join.iter().map(fs::File::open).collect::<io::Result<Vec<_>>>()?;
    let (mut failed, tell) = io::pipe()?;
    let pid = match user {
        Some(user) => clone_inside(user)?,
        None => clone(0)?,
    };
    if pid == 0 {
        drop(failed);
        let error = match run(&namespaces, tell.as_raw_fd()) {
            Ok(never) => match never {},
            Err(error) => error,
        };
        let _ = io::Write::write_all(&mut { tell }, error.to_string().as_bytes());
        children::exit_now(1);
    }
    drop(tell);
    let mut message = String::new();
    // Ends when the child closes its side, which it does once it is set up.
    io::Read::read_to_string(&mut failed, &mut message)?;
    if message.is_empty() {
        return Ok(pid);
    }
    let _ = children::wait_for(pid);
    Err(io::Error::other(format!("pause process: {message}")))
}

/// Forks into a new pid namespace; 0 is the child's side.
fn clone(flags: i32) -> io::Result<i32> {
    let flags = flags | libc::CLONE_NEWPID | libc::SIGCHLD;
    // SAFETY: without a stack and without CLONE_VM this is fork; the process has one thread, so the child
    // may use everything that it inherits.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        pid if pid < 0 => Err(io::Error::last_os_error()),
        pid => i32::try_from(pid).map_err(io::Error::other),
    }
}

/// The same from inside a user namespace, which only a process that stays there can do: a helper makes a child
/// that is this process's.
fn clone_inside(user: &Path) -> io::Result<i32> {
    let (mut told, mut tell) = io::pipe()?;
    // SAFETY: the process has one thread, so the child may use everything that it inherits.
    let helper = unsafe { libc::fork() };
    if helper < 0 {
        return Err(io::Error::last_os_error());
    }
    if helper == 0 {
        drop(told);
        let text = match namespaces::enter(user).and_then(|()| clone(libc::CLONE_PARENT)) {
            Ok(0) => return Ok(0),
            Ok(pid) => pid.to_string(),
            Err(error) => error.to_string(),
        };
        let _ = io::Write::write_all(&mut tell, text.as_bytes());
        children::exit_now(0);
    }
    drop(tell);
    let mut text = String::new();
    io::Read::read_to_string(&mut told, &mut text)?;
    children::wait_for(helper)?;
    text.parse().map_err(|_| io::Error::other(text))
}

enum Never {}

fn run(namespaces: &[fs::File], tell: i32) -> io::Result<Never> {
    let check = |result: i32| match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: plain integers, buffers of the length said, descriptors that are open; `set` is initialised
    // by sigemptyset. Nothing of Rust's runtime is used after the descriptors are closed.
    unsafe {
        check(libc::setsid().min(0))?;
        for namespace in namespaces {
            check(libc::setns(namespace.as_raw_fd(), 0))?;
        }
        check(libc::chdir(c"/".as_ptr()))?;
        rename();
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT] {
            libc::sigaddset(&raw mut set, signal);
        }
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()))?;
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        for stdio in 0..3 {
            libc::dup2(null, stdio);
        }
        check(libc::setgroups(0, std::ptr::null()))?;
        check(libc::setresgid(NOBODY, NOBODY, NOBODY))?;
        // Leaving uid 0 drops all capabilities and makes the process undumpable: containers in the pod
        // cannot reach our binary through /proc/1/exe.
        check(libc::setresuid(NOBODY, NOBODY, NOBODY))?;
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        let _ = tell;
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
        loop {
            let signal = libc::sigwaitinfo(&raw const set, std::ptr::null_mut());
            if signal == libc::SIGTERM || signal == libc::SIGINT {
                libc::_exit(0);
            }
            while libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) > 0 {}
        }
    }
}

/// Lets `ps` inside the pod show `/pause`, as it does with upstream's.
fn rename() {
    // SAFETY: PR_SET_NAME takes a string that ends in NUL.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"pause".as_ptr()) };
    let Ok(stat) = fs::read_to_string("/proc/thread-self/stat") else {
        return;
    };
    // The command's name may hold anything; fields are counted after its closing parenthesis (field 3 first).
    let Some((_, fields)) = stat.rsplit_once(')') else {
        return;
    };
    let mut fields = fields.split_ascii_whitespace().skip(48 - 3);
    let mut next = || fields.next().and_then(|field| field.parse::<usize>().ok());
    let (Some(start), Some(end)) = (next(), next()) else {
        return;
    };
    let name = b"/pause";
    if start == 0 || end <= start + name.len() {
        return;
    }
    let start = start as *mut u8;
    let length = end.wrapping_sub(start as usize);
    // SAFETY: the kernel says that the arguments lie in [start, end): writable memory of the stack that Rust
    // has copied its `args` from and does not refer to any more in this process.
    unsafe {
        std::ptr::write_bytes(start, 0, length);
        std::ptr::copy_nonoverlapping(name.as_ptr(), start, name.len());
    }
}
