//! The filter, then the command.
#![allow(unsafe_code)]

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;

/// Loads a seccomp filter (empty: none) and executes the command. Returns only when that fails.
///
/// `filter` is a program as [`crate::seccomp::compile`] makes it: flags, then 8 bytes an instruction.
pub(crate) fn run(filter: &[u8], path: &CStr, args: &[CString], env: &[CString]) -> io::Result<Infallible> {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        let strings = strings.iter().map(|string| string.as_ptr());
        strings.chain([std::ptr::null()]).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    let (flags, program) = decode(filter)?;
    reset_signals()?;
    // SAFETY: the program, the strings and the arrays, which end in null, outlive the calls. Nothing is done
    // between the filter and execve: the filter may forbid anything else.
    unsafe {
        if !program.is_empty() {
            let program = libc::sock_fprog {
                len: u16::try_from(program.len()).map_err(io::Error::other)?,
                filter: program.as_ptr().cast_mut(),
            };
            let mode = libc::SECCOMP_SET_MODE_FILTER;
            if libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr());
    }
    Err(io::Error::last_os_error())
}

/// The command starts with no signal blocked and none ignored: Rust's runtime ignores SIGPIPE, and
/// ignoring is inherited.
fn reset_signals() -> io::Result<()> {
    // SAFETY: `none` is initialised by sigemptyset; the rest are plain integers.
    unsafe {
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        match libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn decode(filter: &[u8]) -> io::Result<(u32, Vec<libc::sock_filter>)> {
    let Some((flags, program)) = filter.split_first_chunk::<4>() else {
        return Ok((0, Vec::new()));
    };
    let (instructions, rest) = program.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let program = instructions
        .iter()
        .map(|&[c0, c1, jt, jf, k0, k1, k2, k3]| libc::sock_filter {
            code: u16::from_le_bytes([c0, c1]),
            jt,
            jf,
            k: u32::from_le_bytes([k0, k1, k2, k3]),
        })
        .collect();
    Ok((u32::from_le_bytes(*flags), program))
}

/// Ends the process at once.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: _exit does not return and touches no memory of ours.
    unsafe { libc::_exit(code) }
}
