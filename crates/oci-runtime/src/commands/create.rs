//! `create`: everything but the command itself, which waits for `start`.

use std::path::{Path, PathBuf, absolute};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use serde_json::Value;

use super::delete::end_all;
use super::{check_id, process_error};
use crate::bundle::{self, Specs};
use crate::command_line::Create;
use crate::kernel::{mounts, stdio};
use crate::stage::{Retreat, Stage};
use crate::user_namespace::UserNamespace;
use crate::{Error, Result, cgroups, devices, init, journal, limits, read_json, seccomp, working_directory};

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
    let mut executor = bundle::process(&process, filter.clone())?;
    let user_namespace = UserNamespace::of(&config)?;
    bundle::adapt(&mut config, &bundle, id)?;
    if let Some(directory) = process.get("cwd").and_then(Value::as_str) {
        let root = config["root"]["path"].as_str().unwrap_or_default();
        let owner = user_namespace.as_ref().map_or((0, 0), UserNamespace::root);
        working_directory::prepare(Path::new(root), Path::new(directory), owner)
            .map_err(Error::file("make working directory", Path::new(directory)))?;
        executor.enter(directory.into());
        config["process"]["cwd"] = "/".into();
    }
    std::fs::create_dir_all(root).map_err(Error::file("make", root))?;
    let cgroup = bundle::cgroups_path(&config, id);
    // Whether it can withdraw or not: what a container may write does not hang on that.
    if user_namespace.is_none() && cgroups::are_v1() {
        show_cgroups(&mut config, &cgroup);
    }
    let specs = Specs::of(root, id);
    specs.write(&bundle, &config, &filter)?;

    let needed = needed(root, &bundle, &specs, create);
    let needed: Vec<&Path> = needed.iter().map(AsRef::as_ref).collect();
    let mut retreat = None;
    let staged = match &user_namespace {
        Some(namespace) => enter(namespace, &process, &specs, &mut config, &needed),
        None => {
            retreat = withdraw(&specs, &config, &needed);
            Ok(())
        }
    };
    let built = staged.and_then(|()| build(root, create, &specs, executor, &process, &cgroup));
    drop(retreat);
    // The container's command has not begun: it waits for `start`.
    let built = match cgroups::are_v1() {
        true => built,
        false => built.and_then(|()| devices::confine(&config, &cgroup)),
    };
    // Later commands look for the root where it is.
    let result = built.and_then(|()| specs.write_config(&config));
    if result.is_err() {
        let _ = end_all(&cgroup, None);
        let _ = cgroups::remove(&cgroup);
        let _ = std::fs::remove_dir_all(root.join(id));
        specs.remove();
    }
    result
}

/// What libcontainer looks for on the host by its path, besides what is staged.
fn needed(root: &Path, bundle: &Path, specs: &Specs, create: &Create) -> Vec<PathBuf> {
    let files = [&create.pid_file, &create.console_socket].into_iter().flatten();
    let directories = files.filter_map(|file| Some(absolute(file).ok()?.parent()?.to_owned()));
    [root, bundle, specs.dir()].map(Path::to_owned).into_iter().chain(directories).collect()
}

/// Goes where the table of mounts is short (see [`crate::stage`]); none where that is not worth it or cannot be done:
/// then libcontainer finds everything where it is, or says what it does not find.
fn withdraw(specs: &Specs, config: &Value, needed: &[&Path]) -> Option<Retreat> {
    let hooks = config.get("hooks").and_then(Value::as_object).is_some_and(|hooks| !hooks.is_empty());
    // Hooks are programs of the host and may want anything of it.
    if hooks || !cgroups::are_v1() {
        return None;
    }
    let mut staged = config.clone();
    let stage = Stage::gather(&mut staged, needed, None).ok()?;
    let retreat = Retreat::enter(needed).ok()?;
    stage.set().and_then(|()| specs.write_config(&staged)).ok().map(|()| retreat)
}

/// Replaces mounts of the cgroups by the directories that they are, where the container has no cgroup namespace.
fn show_cgroups(config: &mut Value, cgroup: &Path) {
    let namespaces = config.pointer("/linux/namespaces").and_then(Value::as_array);
    if namespaces.into_iter().flatten().any(|namespace| namespace["type"] == "cgroup") {
        return;
    }
    let Some(mounts) = config["mounts"].as_array_mut() else { return };
    *mounts = std::mem::take(mounts)
        .into_iter()
        .flat_map(|mount| match mount["type"] == "cgroup" {
            true => cgroups::v1_mounts(cgroup, &mount),
            false => vec![mount],
        })
        .collect();
}

/// Prepares what the container needs of the host before its user namespace is joined; `config` stays as later
/// commands want it.
fn enter(
    namespace: &UserNamespace,
    process: &Value,
    specs: &Specs,
    config: &mut Value,
    needed: &[&Path],
) -> Result<()> {
    let mut staged = config.clone();
    mounts::unshare().map_err(|error| Error::text(format!("unshare the mount namespace: {error}")))?;
    // Everything is taken before anything is hidden by the stage.
    Stage::gather(&mut staged, needed, Some(namespace))?.set()?;
    bundle::without_mappings(&mut staged);
    bundle::without_mappings(config);
    specs.write_config(&staged)?;
    let (uid, gid) = namespace.member(process)?.on_host;
    stdio::hand_over(uid, gid);
    Ok(())
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
            .with_pid_file(create.pid_file.as_ref().and_then(|file| absolute(file).ok()))?
            .with_console_socket(create.console_socket.as_ref().and_then(|file| absolute(file).ok()))
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
