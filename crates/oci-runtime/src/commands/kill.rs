//! `kill`: a signal, and nothing else. (libcontainer's notes the container as stopped whatever the signal.)

use std::path::Path;

use nix::sys::signal::Signal;

use super::load;
use crate::bundle::{Specs, cgroups_path};
use crate::init::Init;
use crate::kernel::signals;
use crate::{Error, Result, cgroups};

pub(crate) fn run(root: &Path, id: &str, signal: &str, all: bool) -> Result<()> {
    let container = load(root, id)?;
    let signal = parse(signal)?;
    let specs = Specs::of(root, id);
    let cgroup = cgroups_path(&specs.original()?, id);
    let init = Init::of(&container, &specs, &cgroup).filter(Init::lives);
    if init.is_none() && !all {
        return Err(Error::text("container not running"));
    }
    if let Some(init) = &init {
        init.signal(signal)?;
    }
    if all {
        let others = cgroups::processes(&cgroup);
        for pid in others.into_iter().filter(|pid| init.as_ref().is_none_or(|init| init.pid() != *pid)) {
            signals::send(pid, None, signal)?;
        }
    }
    if signal == libc::SIGKILL {
        cgroups::thaw(&cgroup);
    }
    Ok(())
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
