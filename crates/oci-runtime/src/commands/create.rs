//! `create`: everything but the command itself, which waits for `start`.

use std::path::Path;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use serde_json::Value;

use super::delete::end_all;
use super::{check_id, process_error};
use crate::bundle::{self, Specs};
use crate::command_line::Create;
use crate::{Error, Result, cgroups, init, journal, limits, read_json, seccomp};

pub(crate) fn run(root: &Path, create: &Create) -> Result<()> {
    let id = &create.id;
    check_id(id)?;
    if root.join(id).exists() {
        return Err(Error::text("container with given ID already exists"));
    }
    let bundle = create.bundle.canonicalize().map_err(Error::file("find bundle", &create.bundle))?;
    let mut config = read_json(&bundle.join("config.json"))?;
    let profile = config.pointer("/linux/seccomp").filter(|profile| !profile.is_null());
    let filter = profile.map_or_else(|| Ok(Vec::new()), seccomp::compile);
    let filter = filter.map_err(Error::text)?;
    let process = config.get("process").cloned().unwrap_or_default();
    let executor = bundle::process(&process, filter.clone())?;
    bundle::adapt(&mut config, &bundle, id)?;
    std::fs::create_dir_all(root).map_err(Error::file("make", root))?;
    let specs = Specs::of(root, id);
    specs.write(&bundle, &config, &filter)?;
    let cgroup = bundle::cgroups_path(&config, id);

    let result = build(root, create, &specs, executor, &process, &cgroup);
    if result.is_err() {
        let _ = end_all(&cgroup, None);
        let _ = cgroups::remove(&cgroup);
        let _ = std::fs::remove_dir_all(root.join(id));
        specs.remove();
    }
    result
}

fn build(
    root: &Path,
    create: &Create,
    specs: &Specs,
    executor: crate::executor::Process,
    process: &Value,
    cgroup: &Path,
) -> Result<()> {
    let mut whispers = journal::listen();
    if let Some(score) = process.get("oomScoreAdj").and_then(Value::as_i64) {
        limits::set_oom_score(score);
    }
    // This process is the last that needs nothing of where it was: what it starts is born in there.
    let before = cgroups::join_plain(cgroup)?;
    let built = (|| {
        ContainerBuilder::new(create.id.clone(), SyscallType::default())
            .with_root_path(root)?
            .with_pid_file(create.pid_file.as_ref())?
            .with_console_socket(create.console_socket.as_ref())
            .with_preserved_fds(create.preserve_fds)
            .with_executor(executor)
            .as_init(specs.dir())
            .with_systemd(false)
            .with_no_pivot(create.no_pivot)
            .with_detach(true)
            .as_sibling(true)
            .build()
    })();
    let container = built.map_err(|error| {
        before.restore();
        let why = process_error(error, &mut whispers);
        Error::text(format!("sampan create failed: unable to start container process: {why}"))
    })?;
    match container.pid().and_then(|pid| init::begin(pid.as_raw())) {
        Some(begin) => specs.note_init(begin),
        None => Ok(()),
    }
}
