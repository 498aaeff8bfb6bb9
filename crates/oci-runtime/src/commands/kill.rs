//! `kill`: a signal, and nothing else. (libcontainer's notes the container as stopped whatever the signal.)

use std::path::Path;

use libcontainer::container::ContainerStatus;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::load;
use crate::bundle::{Specs, cgroups_path};
use crate::{Error, Result, cgroups};

pub(crate) fn run(root: &Path, id: &str, signal: &str, all: bool) -> Result<()> {
    let container = load(root, id)?;
    let signal = parse(signal)?;
    let stopped = container.status() == ContainerStatus::Stopped;
    if stopped && !all {
        return Err(Error::text("container not running"));
    }
    let init = container.pid().map(Pid::as_raw).filter(|_| !stopped);
    let cgroup = cgroups_path(&Specs::of(root, id).original()?, id);
    let mut pids: Vec<i32> = init.into_iter().collect();
    if all {
        pids.extend(cgroups::processes(&cgroup));
        pids.sort_unstable();
        pids.dedup();
    }
    for pid in pids {
        send(pid, signal)?;
    }
    if signal == libc::SIGKILL {
        cgroups::thaw(&cgroup);
    }
    Ok(())
}

/// Sends a signal; a process that has ended is fine.
pub(super) fn send(pid: i32, signal: i32) -> Result<()> {
    let number = match Signal::try_from(signal) {
        Ok(signal) => signal,
        // Real-time signals are not in nix's list.
        Err(_) => return send_number(pid, signal),
    };
    match kill(Pid::from_raw(pid), number) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(error) => Err(Error::text(format!("signal {signal} to {pid}: {error}"))),
    }
}

#[allow(unsafe_code, reason = "kill takes plain integers")]
fn send_number(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: kill takes plain integers.
    if unsafe { libc::kill(pid, signal) } == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ESRCH) => Ok(()),
        _ => Err(Error::text(format!("signal {signal} to {pid}: {error}"))),
    }
}

/// A number or a name with or without `SIG`, also `RTMIN+n`.
fn parse(signal: &str) -> Result<i32> {
    let unknown = || Error::text(format!("unknown signal {signal:?}"));
    if let Ok(number) = signal.parse::<i32>() {
        return if (0..=64).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let name = signal.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        let offset: i32 = match rest {
            "" => 0,
            _ => rest.strip_prefix('+').and_then(|n| n.parse().ok()).ok_or_else(unknown)?,
        };
        let number = 34 + offset;
        return if (34..=64).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let signal: Signal = format!("SIG{name}").parse().map_err(|_| unknown())?;
    Ok(signal as i32)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::parse;

    #[test]
    fn signals_have_numbers_and_names() {
        for (text, number) in [("9", 9), ("SIGTERM", 15), ("usr1", 10), ("RTMIN+3", 37)] {
            assert_eq!(parse(text).unwrap(), number);
        }
        for text in ["", "SIGNOTHING", "65", "-1", "RTMIN+31"] {
            assert!(parse(text).is_err());
        }
    }
}
