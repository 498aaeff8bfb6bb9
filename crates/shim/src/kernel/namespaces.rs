//! Making a pod's namespaces: a short-lived child unshares, the shim pins what it made, the child ends.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use super::{children, pins};
use crate::protocol::{IdMapping, IdMappings};

/// One namespace to make: which, and where it is pinned.
pub(crate) struct Wanted {
    pub(crate) kind: Kind,
    pub(crate) target: PathBuf,
}

/// The namespaces that a pod's containers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Net,
    Ipc,
    Uts,
}

impl Kind {
    /// Its name in `/proc/PID/ns` and under `<dir>/ns`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Net => "net",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
        }
    }

    fn flag(self) -> i32 {
        match self {
            Self::Net => libc::CLONE_NEWNET,
            Self::Ipc => libc::CLONE_NEWIPC,
            Self::Uts => libc::CLONE_NEWUTS,
        }
    }
}

/// Makes a user namespace with these ids and pins it at `target`.
pub(crate) fn make_user(ids: &IdMappings, target: &Path) -> io::Result<()> {
    in_child(
        || {
            // SAFETY: unshare takes a plain integer.
            match unsafe { libc::unshare(libc::CLONE_NEWUSER) } {
                0 => Ok(()),
                _ => Err(with("unshare the user namespace", io::Error::last_os_error())),
            }
        },
        |pid| {
            for (file, ranges) in [("uid_map", &ids.uids), ("gid_map", &ids.gids)] {
                // The kernel takes all of it in one write.
                fs::write(format!("/proc/{pid}/{file}"), map(ranges)).map_err(|error| with(file, error))?;
            }
            pins::pin(Path::new(&format!("/proc/{pid}/ns/user")), target)
                .map_err(|error| with(&format!("pin {}", target.display()), error))
        },
    )
}

/// user_namespaces(7): inside, outside, how many.
fn map(ranges: &[IdMapping]) -> String {
    ranges.iter().map(|range| format!("{} {} {}\n", range.container_id, range.host_id, range.size)).collect()
}

/// Enters a pinned user namespace; what is made from now on belongs to it.
pub(super) fn enter(user: &Path) -> io::Result<()> {
    let namespace = fs::File::open(user)?;
    // SAFETY: setns takes an open descriptor and an integer.
    match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWUSER) } {
        0 => Ok(()),
        _ => Err(with("enter the user namespace", io::Error::last_os_error())),
    }
}

/// Makes and pins namespaces that belong to the user namespace pinned at `user` (none: the host's), with hostname
/// and sysctls applied.
pub(crate) fn make(
    wanted: &[Wanted],
    user: Option<&Path>,
    hostname: &str,
    sysctls: &BTreeMap<String, String>,
) -> io::Result<()> {
    let flags = wanted.iter().fold(0, |flags, ns| flags | ns.kind.flag());
    let name_host = !hostname.is_empty() && wanted.iter().any(|ns| ns.kind == Kind::Uts);
    in_child(
        || {
            if let Some(user) = user {
                enter(user)?;
            }
            // SAFETY: unshare and sethostname take plain integers and a buffer of the length said.
            unsafe {
                if libc::unshare(flags) != 0 {
                    return Err(with("unshare", io::Error::last_os_error()));
                }
                if name_host && libc::sethostname(hostname.as_ptr().cast(), hostname.len()) != 0 {
                    return Err(with("set the hostname", io::Error::last_os_error()));
                }
            }
            // Some are refused to a pod's own root that the host's may write.
            if user.is_none() { write_sysctls(sysctls) } else { Ok(()) }
        },
        |pid| {
            for ns in wanted {
                let source = PathBuf::from(format!("/proc/{pid}/ns/{}", ns.kind.name()));
                pins::pin(&source, &ns.target)
                    .map_err(|error| with(&format!("pin {}", ns.target.display()), error))?;
            }
            Ok(())
        },
    )?;
    if user.is_some() && !sysctls.is_empty() {
        let paths: Vec<&Path> = wanted.iter().map(|ns| ns.target.as_path()).collect();
        apply_sysctls(&paths, sysctls)?;
    }
    Ok(())
}

/// Applies sysctls in namespaces that are pinned at `paths`.
pub(crate) fn apply_sysctls(paths: &[&Path], sysctls: &BTreeMap<String, String>) -> io::Result<()> {
    in_child(
        || {
            for path in paths {
                let namespace = fs::File::open(path)?;
                // SAFETY: setns takes an open descriptor and an integer.
                if unsafe { libc::setns(namespace.as_raw_fd(), 0) } != 0 {
                    return Err(with("setns", io::Error::last_os_error()));
                }
            }
            write_sysctls(sysctls)
        },
        |_| Ok(()),
    )
}

fn write_sysctls(sysctls: &BTreeMap<String, String>) -> io::Result<()> {
    for (name, value) in sysctls {
        // `a.b` or `a/b`; with a slash in it, dots belong to a name (`net/ipv4/conf/eth0.100/…`).
        let path = if name.contains('/') { name.clone() } else { name.replace('.', "/") };
        if path.split('/').any(|part| part == "..") {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("sysctl {name}: not a name")));
        }
        fs::write(Path::new("/proc/sys").join(path), value)
            .map_err(|error| with(&format!("sysctl {name}={value}"), error))?;
    }
    Ok(())
}

fn with(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Runs `inside` in a child, then `outside` in this process while the child still lives.
fn in_child(
    inside: impl FnOnce() -> io::Result<()>,
    outside: impl FnOnce(u32) -> io::Result<()>,
) -> io::Result<()> {
    let (mut told, mut tell) = io::pipe()?;
    let (mut hold, release) = io::pipe()?;
    // SAFETY: the process has one thread, so the child may use everything that it inherits.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        drop(told);
        drop(release);
        match inside() {
            Ok(()) => {
                let _ = tell.write_all(b"\0");
                drop(tell);
                let _ = hold.read(&mut [0]);
            }
            Err(error) => {
                let _ = tell.write_all(error.to_string().as_bytes());
            }
        }
        children::exit_now(0);
    }
    drop(tell);
    drop(hold);
    let mut message = Vec::new();
    let result = match told.read_to_end(&mut message) {
        Ok(_) if message == b"\0" => outside(pid.unsigned_abs()),
        Ok(_) => Err(io::Error::other(String::from_utf8_lossy(&message).into_owned())),
        Err(error) => Err(error),
    };
    drop(release);
    children::wait_for(pid)?;
    result
}
