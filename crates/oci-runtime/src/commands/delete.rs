//! `delete`: ends what is left of a container when forced, waits for it to be gone, removes all traces.

use std::path::Path;
use std::time::{Duration, Instant};

use libcontainer::container::ContainerStatus;

use super::{check_id, load};
use crate::bundle::{Specs, cgroups_path};
use crate::init::{self, Init, alive};
use crate::kernel::signals;
use crate::{Error, Result, cgroups};

/// How long killed processes may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run(root: &Path, id: &str, force: bool) -> Result<()> {
    check_id(id)?;
    let specs = Specs::of(root, id);
    let cgroup = specs.original().map(|config| cgroups_path(&config, id)).ok();
    let mut container = match load(root, id) {
        Ok(container) => container,
        Err(error) => {
            // Half of a container: what there is goes.
            if !force {
                return Err(error);
            }
            if let Some(cgroup) = &cgroup {
                end_all(cgroup, None)?;
                cgroups::remove(cgroup)?;
            }
            specs.remove();
            let _ = std::fs::remove_dir_all(root.join(id));
            return Ok(());
        }
    };
    let cgroup = match (cgroup, container.spec()) {
        (Some(cgroup), _) => cgroup,
        (None, Ok(config)) => config.cgroup_path,
        (None, Err(source)) => {
            return Err(Error::Container(format!("delete container {id}"), Box::new(source)));
        }
    };
    let init = Init::of(&container, &specs, &cgroup);
    init::correct(&mut container, init.as_ref());
    let alive = container.status() != ContainerStatus::Stopped;
    if alive && !force && container.status() != ContainerStatus::Created {
        return Err(Error::text(format!(
            "cannot delete container {id} that is not stopped: {}",
            container.status()
        )));
    }
    end_all(&cgroup, init.as_ref())?;
    cgroups::remove(&cgroup)?;
    // Nothing of it runs any more. libcontainer would kill whoever has the number now: it is taken from it.
    container.state.pid = None;
    container
        .save()
        .and_then(|()| container.delete(true))
        .map_err(|source| Error::Container(format!("delete container {id}"), Box::new(source)))?;
    specs.remove();
    Ok(())
}

/// Kills everything in the cgroups (and the init) until nothing is left.
pub(super) fn end_all(cgroup: &Path, init: Option<&Init>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(200);
    loop {
        let mut pids = if cgroup == Path::new("/") { Vec::new() } else { cgroups::processes(cgroup) };
        let ourselves = std::process::id().cast_signed();
        pids.retain(|pid| *pid != ourselves && alive(*pid));
        let init = init.filter(|init| init.lives());
        if pids.is_empty() && init.is_none() {
            return Ok(());
        }
        if let Some(init) = init {
            init.signal(libc::SIGKILL)?;
        }
        for pid in pids {
            signals::send(pid, None, libc::SIGKILL)?;
        }
        cgroups::thaw(cgroup);
        if Instant::now() > deadline {
            return Err(Error::text("container init still running"));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
