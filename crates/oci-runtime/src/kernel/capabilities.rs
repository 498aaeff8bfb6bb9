//! Capability sets.
#![allow(unsafe_code)]

use std::io;

/// Names by number (uapi/linux/capability.h), without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;

/// The sets that decide what a command gets at execve; bit masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CapabilitySets {
    pub(crate) bounding: u64,
    pub(crate) inheritable: u64,
    pub(crate) ambient: u64,
}

/// The mask of names with or without `CAP_`; unknown ones are left out, as runc does.
pub(crate) fn mask<'a>(names: impl IntoIterator<Item = &'a str>) -> u64 {
    names.into_iter().fold(0, |mask, name| {
        let name = name.to_ascii_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name);
        let bit = NAMES.iter().position(|known| *known == name);
        mask | bit.map_or(0, |bit| 1 << bit)
    })
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Limits this process's sets, leaving the effective and permitted ones for what is still to do.
pub(crate) fn limit(sets: &CapabilitySets) -> io::Result<()> {
    let mut header = Header { version: VERSION, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: plain integers, and structures laid out as the kernel's with room for version 3's two halves.
    unsafe {
        check(libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()))?;
        for bit in 0..64_u64 {
            // Not known to this kernel: there is nothing beyond.
            if libc::prctl(libc::PR_CAPBSET_READ, bit, 0, 0, 0) < 0 {
                break;
            }
            if sets.bounding >> bit & 1 == 0 {
                check(libc::prctl(libc::PR_CAPBSET_DROP, bit, 0, 0, 0).into())?;
            }
        }
        let permitted = u64::from(data[0].permitted) | u64::from(data[1].permitted) << 32;
        let inheritable = sets.inheritable & permitted;
        #[allow(clippy::cast_possible_truncation, reason = "the halves of a mask")]
        for (half, shift) in data.iter_mut().zip([0, 32]) {
            half.effective = half.permitted;
            half.inheritable = (inheritable >> shift) as u32;
        }
        check(libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()))?;
        check(libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0).into())?;
        let ambient = sets.ambient & inheritable;
        for bit in (0..64_u64).filter(|bit| ambient >> bit & 1 == 1) {
            check(libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, bit, 0, 0).into())?;
        }
    }
    Ok(())
}

fn check(result: i64) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_make_masks() {
        assert_eq!(mask(["CAP_CHOWN", "net_bind_service", "CAP_NO_SUCH"]), 1 | 1 << 10);
        assert_eq!(mask(["CAP_CHECKPOINT_RESTORE"]), 1 << 40);
    }
}
