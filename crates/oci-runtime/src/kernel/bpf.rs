//! Programs that the kernel asks about a cgroup's processes.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

// uapi/linux/bpf.h.
const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Programs of the cgroups above are asked as well, and all have to agree.
const ALLOW_MULTI: u32 = 2;

/// The beginning of `union bpf_attr` for loading a program.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

/// The same for attaching one.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Has the kernel ask `program` (one `u64` an instruction) whether a process in `cgroup` may use a device. It goes with
/// the cgroup.
pub(crate) fn guard_devices(cgroup: &File, program: &[u64]) -> io::Result<()> {
    let load = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.as_ptr() as u64,
        // Only some functions ask for a license, and none is called.
        license: c"MIT".as_ptr() as u64,
        ..Load::default()
    };
    let loaded = call(PROG_LOAD, &load)?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    let loaded = unsafe { OwnedFd::from_raw_fd(loaded) };
    let descriptor = |fd: i32| u32::try_from(fd).map_err(io::Error::other);
    let attach = Attach {
        target: descriptor(cgroup.as_raw_fd())?,
        program: descriptor(loaded.as_raw_fd())?,
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    call(PROG_ATTACH, &attach).map(drop)
}

fn call<T>(command: libc::c_long, attributes: &T) -> io::Result<i32> {
    // SAFETY: the kernel reads as many bytes as it is told; what they point at outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), std::mem::size_of::<T>())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}
