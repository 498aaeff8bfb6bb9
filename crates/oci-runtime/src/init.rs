//! A container's first process, told from a later one that has its number.
//!
//! The number in libcontainer's state is all that it looks at. When shim and daemon are both dead (a crash, an
//! upgrade gone wrong), nobody holds the number any more: hours later it may be anybody's. So a process counts as
//! the container's only when it is in the container's cgroups, or began when the recorded one did; and signals go
//! through a descriptor that was opened before that was looked at.

use std::os::fd::OwnedFd;
use std::path::Path;

use libcontainer::container::{Container, ContainerStatus};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::bundle::Specs;
use crate::{Result, cgroups, kernel};

/// The first process of a container, which has not ended (or is a zombie).
#[derive(Debug)]
pub(crate) struct Init {
    pid: i32,
    began: u64,
    /// None before Linux 5.3.
    descriptor: Option<OwnedFd>,
}

impl Init {
    /// Finds it; none when it is gone, whoever has its number now.
    pub(crate) fn of(container: &Container, specs: &Specs, cgroup: &Path) -> Option<Self> {
        let pid = container.pid()?.as_raw();
        let descriptor = match pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()) {
            Ok(descriptor) => Some(descriptor),
            Err(Errno::SRCH) => return None,
            Err(_) => None,
        };
        let began = begin(pid)?;
        let ours = specs.init_begin() == Some(began)
            || cgroup != Path::new("/") && cgroups::processes(cgroup).contains(&pid);
        ours.then_some(Self { pid, began, descriptor })
    }

    /// Its number on the host.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Neither gone nor a zombie.
    pub(crate) fn lives(&self) -> bool {
        begin(self.pid) == Some(self.began) && alive(self.pid)
    }

    /// Sends a signal; that it has ended meanwhile is fine.
    pub(crate) fn signal(&self, signal: i32) -> Result<()> {
        kernel::signals::send(self.pid, self.descriptor.as_ref(), signal)
    }
}

/// Neither gone nor a zombie.
pub(crate) fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !"ZX".contains(state))
}

/// When a process began, in clock ticks since the boot (field 22 of its `stat`).
pub(crate) fn begin(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may hold anything; fields are counted after its closing parenthesis (field 3 first).
    stat.rsplit_once(") ")?.1.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

/// A loaded container's status: libcontainer takes any process with the number for the container's.
pub(crate) fn correct(container: &mut Container, init: Option<&Init>) {
    if init.is_none() {
        container.set_status(ContainerStatus::Stopped);
    }
}
